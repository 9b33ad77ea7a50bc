# Cascade Mask R-CNN with Agent-Swin-S, 3x (36 epochs), COCO 2017.
#
#   bash tools/dist_train.sh configs/agent_swin/cascade-mask-rcnn_agent-swin-s_fpn_3x_coco.py 8
#
# Expected: 52.6 box AP, 45.5 mask AP (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 107 M parameters, 843 GFLOPs at 1280x800 (reported by the authors).
_base_ = "./cascade-mask-rcnn_agent-swin-t_fpn_3x_coco.py"

model = dict(
    backbone=dict(
        arch="small",
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint="checkpoints/agent_swin_s.pth"),
    ),
)
