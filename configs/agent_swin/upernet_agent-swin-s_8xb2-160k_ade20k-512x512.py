# UPerNet with Agent-Swin-S, 160k iterations, ADE20K.
#
#   bash tools/dist_train.sh configs/agent_swin/upernet_agent-swin-s_8xb2-160k_ade20k-512x512.py 8
#
# Expected: 48.08 mIoU, 59.78 mAcc (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 81 M parameters, 1043 GFLOPs at 512x2048 (reported by the authors).
_base_ = "./upernet_agent-swin-t_8xb2-160k_ade20k-512x512.py"

model = dict(
    backbone=dict(
        arch="small",
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint="checkpoints/agent_swin_s.pth"),
    ),
)
