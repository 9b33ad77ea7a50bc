# UPerNet with Agent-CSwin-T, 160k iterations, ADE20K, by the recipe of Agent-Swin-T.
#
#   bash tools/dist_train.sh configs/agent_cswin/upernet_agent-cswin-t_8xb2-160k_ade20k-512x512.py 8
#
# Expected: no score is known; the authors report none in dense prediction for Agent-CSwin. Plain
# CSwin-T: 49.3 mIoU (reported by its own authors).
# Cost: 50 M parameters, 952 GFLOPs at 512x2048 (counted here by tools/get_flops.py).
_base_ = "../agent_swin/upernet_agent-swin-t_8xb2-160k_ade20k-512x512.py"

model = dict(
    backbone=dict(type="AgentCSwin", init_cfg=dict(checkpoint="checkpoints/agent_cswin_t.pth")),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
