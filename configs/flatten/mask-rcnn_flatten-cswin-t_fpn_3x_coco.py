# Mask R-CNN with FLatten-CSwin-T, 3x (36 epochs), COCO 2017, by the recipe of Agent-Swin-T.
#
#   bash tools/dist_train.sh configs/flatten/mask-rcnn_flatten-cswin-t_fpn_3x_coco.py 8
#
# Expected: no score is known; the authors report none in dense prediction for FLatten-CSwin. Plain
# CSwin-T: 49.0 box AP, 43.6 mask AP (reported by its own authors).
# Cost: 41 M parameters, 274 GFLOPs at 1280x800 (counted here by tools/get_flops.py).
_base_ = [
    "../agent_swin/mask-rcnn_agent-swin-t_fpn_3x_coco.py",
    "../_base_/flatten_no_decay.py",
]

model = dict(
    backbone=dict(type="FLattenCSwin", init_cfg=dict(checkpoint="checkpoints/flatten_cswin_t.pth")),
    neck=dict(in_channels=[64, 128, 256, 512]),
)

optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.flatten_no_decay))
