# Mask R-CNN with Agent-Swin-T, 3x (36 epochs), COCO 2017.
#
#   bash tools/dist_train.sh configs/agent_swin/mask-rcnn_agent-swin-t_fpn_3x_coco.py 8
#
# Expected: 47.3 box AP, 42.7 mask AP (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 48 M parameters, 276 GFLOPs at 1280x800 (reported by the authors).
_base_ = "./mask-rcnn_agent-swin-t_fpn_1x_coco.py"

train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
