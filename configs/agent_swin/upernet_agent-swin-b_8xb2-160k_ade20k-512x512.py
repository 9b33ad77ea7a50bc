# UPerNet with Agent-Swin-B, 160k iterations, ADE20K.
#
#   bash tools/dist_train.sh configs/agent_swin/upernet_agent-swin-b_8xb2-160k_ade20k-512x512.py 8
#
# Expected: 48.73 mIoU, 60.01 mAcc (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 121 M parameters, 1196 GFLOPs at 512x2048 (reported by the authors).
_base_ = "./upernet_agent-swin-t_8xb2-160k_ade20k-512x512.py"

model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.5,
        init_cfg=dict(checkpoint="checkpoints/agent_swin_b.pth"),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
