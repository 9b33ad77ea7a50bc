# Mask R-CNN with Agent-DeiT-S and a simple feature pyramid, 100 epochs of large-scale jitter, COCO
# 2017, by the recipe of ViTDet for ViT-B (arXiv 2203.16527, appendix A). Agent attention is linear,
# so no block is cut into windows. The original trains with half precision: add --amp.
#
#   bash tools/dist_train.sh configs/agent_deit/mask-rcnn_agent-deit-s_sfp_lsj-100e_coco.py 8
#
# Expected: no score is known; the authors report none in dense prediction for Agent-DeiT.
# Cost: 45 M parameters, 429 GFLOPs at 1280x800 (counted here by tools/get_flops.py).
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "../_base_/lsj_pipeline.py",
    "../_base_/agent_deit_no_decay.py",
    "mmdet::_base_/default_runtime.py",
]
custom_imports = dict(imports=["mmdet_agent"], allow_failed_imports=False)

norm_cfg = dict(type="ChannelLayerNorm")
model = dict(
    backbone=dict(
        _delete_=True,
        type="AgentViT",
        arch="small",
        out_indices=(11,),
        drop_path_rate=0.1,
        # docs/weights.md; from scratch: --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/agent_deit_s.pth"),
    ),
    neck=dict(_delete_=True, type="SimpleFeaturePyramid", in_channels=384, out_channels=256),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

train_dataloader = dict(batch_size=8, dataset=dict(pipeline=_base_.lsj_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.large_test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
    constructor="LayerDecayConstructor",
    paramwise_cfg=dict(layer_decay_rate=0.7, flat_decay_mult=0.0, custom_keys=_base_.deit_no_decay),
)
max_iters = 184375
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(
        type="MultiStepLR",
        by_epoch=False,
        begin=0,
        end=max_iters,
        milestones=[163889, 177546],
        gamma=0.1,
    ),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=3))
log_processor = dict(by_epoch=False)

auto_scale_lr = dict(enable=False, base_batch_size=64)
