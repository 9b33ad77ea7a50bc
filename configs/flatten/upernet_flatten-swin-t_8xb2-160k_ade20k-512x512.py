# UPerNet with FLatten-Swin-T, 160k iterations, ADE20K, by the recipe of Agent-Swin-T.
#
#   bash tools/dist_train.sh configs/flatten/upernet_flatten-swin-t_8xb2-160k_ade20k-512x512.py 8
#
# Expected: 44.82 mIoU, 57.01 mAcc (reported by the authors, without code, config or weights; so
# it is not known with which schedule, learning rate, decay and drop path).
# Cost: 60 M parameters, 946 GFLOPs at 512x2048 (reported by the authors; counted here: 943).
_base_ = [
    "../agent_swin/upernet_agent-swin-t_8xb2-160k_ade20k-512x512.py",
    "../_base_/flatten_no_decay.py",
]

model = dict(
    backbone=dict(type="FLattenSwin", init_cfg=dict(checkpoint="checkpoints/flatten_swin_t.pth"))
)

optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.flatten_no_decay))
