# Cascade Mask R-CNN with Agent-Swin-B, 3x (36 epochs), COCO 2017.
#
#   bash tools/dist_train.sh configs/agent_swin/cascade-mask-rcnn_agent-swin-b_fpn_3x_coco.py 8
#
# Expected: 52.6 box AP, 45.3 mask AP (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 145 M parameters, 990 GFLOPs at 1280x800 (reported by the authors).
_base_ = "./cascade-mask-rcnn_agent-swin-t_fpn_3x_coco.py"

model = dict(
    backbone=dict(
        arch="base",
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint="checkpoints/agent_swin_b.pth"),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
