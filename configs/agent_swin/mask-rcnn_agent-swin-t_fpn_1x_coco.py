# Mask R-CNN with Agent-Swin-T, 1x (12 epochs), COCO 2017.
#
#   bash tools/dist_train.sh configs/agent_swin/mask-rcnn_agent-swin-t_fpn_1x_coco.py 8
#
# Expected: 44.6 box AP, 40.7 mask AP (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 48 M parameters, 276 GFLOPs at 1280x800 (reported by the authors).
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "../_base_/detr_pipeline.py",
    "../_base_/agent_swin_no_decay.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]
custom_imports = dict(imports=["mmdet_agent"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="AgentSwinTransformer",
        arch="tiny",
        drop_path_rate=0.1,
        # docs/weights.md; from scratch: --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/agent_swin_t.pth"),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

train_dataloader = dict(dataset=dict(pipeline=_base_.detr_pipeline))

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=_base_.no_decay,
)
