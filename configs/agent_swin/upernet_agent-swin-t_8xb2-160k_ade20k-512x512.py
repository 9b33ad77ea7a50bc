# UPerNet with Agent-Swin-T, 160k iterations, ADE20K.
#
#   bash tools/dist_train.sh configs/agent_swin/upernet_agent-swin-t_8xb2-160k_ade20k-512x512.py 8
#
# Expected: 46.68 mIoU, 58.53 mAcc (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 61 M parameters, 954 GFLOPs at 512x2048 (reported by the authors).
_base_ = [
    "../_base_/upernet_agent_swin.py",
    "../_base_/ade20k.py",
    "../_base_/agent_swin_no_decay.py",
    "../_base_/mmseg_agent.py",
]

model = dict(
    backbone=dict(
        drop_path_rate=0.3,
        # docs/weights.md; from scratch: --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/agent_swin_t.pth"),
    )
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=_base_.no_decay,
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, eta_min=0.0, begin=1500, end=160000, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=16000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(checkpoint=dict(interval=16000))

auto_scale_lr = dict(enable=False, base_batch_size=16)
