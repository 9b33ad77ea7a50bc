# Mask R-CNN with Agent-CSwin-T, 3x (36 epochs), COCO 2017, by the recipe of Agent-Swin-T.
#
#   bash tools/dist_train.sh configs/agent_cswin/mask-rcnn_agent-cswin-t_fpn_3x_coco.py 8
#
# Expected: no score is known; the authors report none in dense prediction for Agent-CSwin. Plain
# CSwin-T: 49.0 box AP, 43.6 mask AP (reported by its own authors).
# Cost: 40 M parameters, 273 GFLOPs at 1280x800 (counted here by tools/get_flops.py).
_base_ = "../agent_swin/mask-rcnn_agent-swin-t_fpn_3x_coco.py"

model = dict(
    backbone=dict(type="AgentCSwin", init_cfg=dict(checkpoint="checkpoints/agent_cswin_t.pth")),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
