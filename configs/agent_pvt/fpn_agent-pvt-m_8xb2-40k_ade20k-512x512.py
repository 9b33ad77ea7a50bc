# Semantic FPN with Agent-PVT-M, 40k iterations, ADE20K.
#
#   bash tools/dist_train.sh configs/agent_pvt/fpn_agent-pvt-m_8xb2-40k_ade20k-512x512.py 8
#
# Expected: 44.30 mIoU, 56.42 mAcc (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 40 M parameters, 321 GFLOPs at 512x2048 (reported by the authors).
_base_ = "./fpn_agent-pvt-t_8xb2-40k_ade20k-512x512.py"

model = dict(
    backbone=dict(
        arch="medium",
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint="checkpoints/agent_pvt_m.pth"),
    )
)
