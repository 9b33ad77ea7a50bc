# Mask R-CNN with FLatten-PVT-T, 1x (12 epochs), COCO 2017, by the recipe of Agent-PVT-T.
#
#   bash tools/dist_train.sh configs/flatten/mask-rcnn_flatten-pvt-t_fpn_1x_coco.py 8
#
# Expected: 38.2 box AP, 37.0 mask AP (reported by the authors, without code, config or weights; so
# it is not known with which learning rate, decay and drop path).
# Cost: 32 M parameters, 244 GFLOPs at 1280x800 (reported by the authors; counted here: 212).
_base_ = "../agent_pvt/mask-rcnn_agent-pvt-t_fpn_1x_coco.py"

model = dict(
    backbone=dict(type="FLattenPVT", init_cfg=dict(checkpoint="checkpoints/flatten_pvt_t.pth"))
)
