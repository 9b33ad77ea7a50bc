# Mask R-CNN with Agent-Swin-S, 1x (12 epochs), COCO 2017.
#
#   bash tools/dist_train.sh configs/agent_swin/mask-rcnn_agent-swin-s_fpn_1x_coco.py 8
#
# Expected: 47.2 box AP, 42.7 mask AP (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 69 M parameters, 364 GFLOPs at 1280x800 (reported by the authors).
_base_ = "./mask-rcnn_agent-swin-t_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        arch="small",
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint="checkpoints/agent_swin_s.pth"),
    ),
)
