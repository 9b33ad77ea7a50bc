# UPerNet with Agent-DeiT-S, 160k iterations, ADE20K, by mmseg's recipe for DeiT-S: four maps of
# stride 16 go through a MultiLevelNeck; what it shares with Agent-Swin's recipe is inherited.
#
#   bash tools/dist_train.sh configs/agent_deit/upernet_agent-deit-s_8xb2-160k_ade20k-512x512.py 8
#
# Expected: no score is known; the authors report none in dense prediction for Agent-DeiT. Plain
# DeiT-S: 43.82 mIoU (reported by mmseg).
# Cost: 58 M parameters, 1065 GFLOPs at 512x2048 (counted here by tools/get_flops.py).
_base_ = [
    "../agent_swin/upernet_agent-swin-t_8xb2-160k_ade20k-512x512.py",
    "../_base_/agent_deit_no_decay.py",
]

model = dict(
    backbone=dict(
        type="AgentViT",
        arch="small",
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint="checkpoints/agent_deit_s.pth"),
    ),
    neck=dict(
        type="MultiLevelNeck", in_channels=[384] * 4, out_channels=384, scales=[4, 2, 1, 0.5]
    ),
    decode_head=dict(in_channels=[384] * 4),
    auxiliary_head=dict(in_channels=384, in_index=3),
)

optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.deit_no_decay))
