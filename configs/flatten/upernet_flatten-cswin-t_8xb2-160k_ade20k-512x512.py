# UPerNet with FLatten-CSwin-T, 160k iterations, ADE20K, by the recipe of Agent-Swin-T.
#
#   bash tools/dist_train.sh configs/flatten/upernet_flatten-cswin-t_8xb2-160k_ade20k-512x512.py 8
#
# Expected: no score is known; the authors report none in dense prediction for FLatten-CSwin. Plain
# CSwin-T: 49.3 mIoU (reported by its own authors).
# Cost: 51 M parameters, 953 GFLOPs at 512x2048 (counted here by tools/get_flops.py).
_base_ = [
    "../agent_swin/upernet_agent-swin-t_8xb2-160k_ade20k-512x512.py",
    "../_base_/flatten_no_decay.py",
]

model = dict(
    backbone=dict(type="FLattenCSwin", init_cfg=dict(checkpoint="checkpoints/flatten_cswin_t.pth")),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)

optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.flatten_no_decay))
