# Semantic FPN with Agent-PVT-S, 40k iterations, ADE20K.
#
#   bash tools/dist_train.sh configs/agent_pvt/fpn_agent-pvt-s_8xb2-40k_ade20k-512x512.py 8
#
# Expected: 44.18 mIoU, 56.17 mAcc (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 24 M parameters, 211 GFLOPs at 512x2048 (reported by the authors).
_base_ = "./fpn_agent-pvt-t_8xb2-40k_ade20k-512x512.py"

model = dict(
    backbone=dict(
        arch="small",
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint="checkpoints/agent_pvt_s.pth"),
    )
)
