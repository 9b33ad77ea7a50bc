# UPerNet with FLatten-Swin-S, 160k iterations, ADE20K, by the recipe of Agent-Swin-S.
#
#   bash tools/dist_train.sh configs/flatten/upernet_flatten-swin-s_8xb2-160k_ade20k-512x512.py 8
#
# Expected: 48.14 mIoU, 59.31 mAcc (reported by the authors, without code, config or weights; so
# it is not known with which schedule, learning rate, decay and drop path).
# Cost: 82 M parameters, 1038 GFLOPs at 512x2048 (reported by the authors; counted here: 1036).
_base_ = [
    "../agent_swin/upernet_agent-swin-s_8xb2-160k_ade20k-512x512.py",
    "../_base_/flatten_no_decay.py",
]

model = dict(
    backbone=dict(type="FLattenSwin", init_cfg=dict(checkpoint="checkpoints/flatten_swin_s.pth"))
)

optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.flatten_no_decay))
