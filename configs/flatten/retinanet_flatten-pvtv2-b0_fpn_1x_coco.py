# RetinaNet with FLatten-PVTv2-B0, 1x (12 epochs), COCO 2017, by the recipe of Agent-PVT-T.
#
#   bash tools/dist_train.sh configs/flatten/retinanet_flatten-pvtv2-b0_fpn_1x_coco.py 8
#
# Expected: no score is known; the authors report none in dense prediction for FLatten-PVTv2.
# Cost: 13 M parameters, 163 GFLOPs at 1280x800 (counted here by tools/get_flops.py).
_base_ = "../agent_pvt/retinanet_agent-pvt-t_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        type="FLattenPVTv2",
        arch="b0",
        init_cfg=dict(checkpoint="checkpoints/flatten_pvtv2_b0.pth"),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
)
