# Semantic FPN with Agent-PVT-T, 40k iterations, ADE20K.
#
#   bash tools/dist_train.sh configs/agent_pvt/fpn_agent-pvt-t_8xb2-40k_ade20k-512x512.py 8
#
# Expected: 40.18 mIoU, 51.76 mAcc (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 15 M parameters, 147 GFLOPs at 512x2048 (reported by the authors).
_base_ = [
    "../_base_/semantic_fpn_agent_pvt.py",
    "../_base_/ade20k.py",
    "../_base_/mmseg_agent.py",
]

model = dict(
    backbone=dict(
        drop_path_rate=0.1,
        # docs/weights.md; from scratch: --cfg-options model.backbone.init_cfg=None
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/agent_pvt_t.pth"),
    )
)

optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=2e-4, weight_decay=1e-4))
param_scheduler = [
    dict(type="PolyLR", power=0.9, eta_min=0.0, begin=0, end=40000, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=40000, val_interval=4000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")

auto_scale_lr = dict(enable=False, base_batch_size=16)
