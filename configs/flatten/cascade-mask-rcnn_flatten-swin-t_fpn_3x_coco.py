# Cascade Mask R-CNN with FLatten-Swin-T, 3x (36 epochs), COCO, by the recipe of Agent-Swin-T.
#
#   bash tools/dist_train.sh configs/flatten/cascade-mask-rcnn_flatten-swin-t_fpn_3x_coco.py 8
#
# Expected: 50.8 box AP, 44.1 mask AP (reported by the authors, without code, config or weights; so
# it is not known with which learning rate, decay and drop path).
# Cost: 87 M parameters, 747 GFLOPs at 1280x800 (reported by the authors; counted here: 744).
_base_ = [
    "../agent_swin/cascade-mask-rcnn_agent-swin-t_fpn_3x_coco.py",
    "../_base_/flatten_no_decay.py",
]

model = dict(
    backbone=dict(type="FLattenSwin", init_cfg=dict(checkpoint="checkpoints/flatten_swin_t.pth"))
)

optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.flatten_no_decay))
