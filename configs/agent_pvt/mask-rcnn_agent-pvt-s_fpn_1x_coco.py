# Mask R-CNN with Agent-PVT-S, 1x (12 epochs), COCO 2017.
#
#   bash tools/dist_train.sh configs/agent_pvt/mask-rcnn_agent-pvt-s_fpn_1x_coco.py 8
#
# Expected: 44.5 box AP, 41.2 mask AP (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 40 M parameters, 293 GFLOPs at 1280x800 (reported by the authors).
_base_ = "./mask-rcnn_agent-pvt-t_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        arch="small",
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint="checkpoints/agent_pvt_s.pth"),
    )
)
