# RetinaNet with Agent-PVT-T, 1x (12 epochs), COCO 2017.
#
#   bash tools/dist_train.sh configs/agent_pvt/retinanet_agent-pvt-t_fpn_1x_coco.py 8
#
# Expected: 40.3 box AP (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 21 M parameters, 211 GFLOPs at 1280x800 (reported by the authors).
_base_ = [
    "mmdet::_base_/models/retinanet_r50_fpn.py",
    "mmdet::_base_/datasets/coco_detection.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]
custom_imports = dict(imports=["mmdet_agent"], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type="AgentPVT",
        arch="tiny",
        drop_path_rate=0.1,
        # docs/weights.md; from scratch: --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/agent_pvt_t.pth"),
    ),
    neck=dict(in_channels=[64, 128, 320, 512], start_level=1, add_extra_convs="on_input"),
)

optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, weight_decay=1e-4))
