# Semantic FPN with Agent-PVT-L, 40k iterations, ADE20K.
#
#   bash tools/dist_train.sh configs/agent_pvt/fpn_agent-pvt-l_8xb2-40k_ade20k-512x512.py 8
#
# Expected: 46.52 mIoU, 58.50 mAcc (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 52 M parameters, 434 GFLOPs at 512x2048 (reported by the authors).
_base_ = "./fpn_agent-pvt-t_8xb2-40k_ade20k-512x512.py"

model = dict(
    backbone=dict(
        arch="large",
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint="checkpoints/agent_pvt_l.pth"),
    )
)
