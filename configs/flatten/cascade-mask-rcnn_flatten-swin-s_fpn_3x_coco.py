# Cascade Mask R-CNN with FLatten-Swin-S, 3x (36 epochs), COCO, by the recipe of Agent-Swin-S.
#
#   bash tools/dist_train.sh configs/flatten/cascade-mask-rcnn_flatten-swin-s_fpn_3x_coco.py 8
#
# Expected: 52.2 box AP, 45.4 mask AP (reported by the authors, without code, config or weights; so
# it is not known with which learning rate, decay and drop path).
# Cost: 108 M parameters, 841 GFLOPs at 1280x800 (reported by the authors; counted here: 836).
_base_ = [
    "../agent_swin/cascade-mask-rcnn_agent-swin-t_fpn_3x_coco.py",
    "../_base_/flatten_no_decay.py",
]

model = dict(
    backbone=dict(
        type="FLattenSwin",
        arch="small",
        init_cfg=dict(checkpoint="checkpoints/flatten_swin_s.pth"),
    )
)

optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.flatten_no_decay))
