# Semantic FPN with FLatten-PVT-T, 40k iterations, ADE20K, by the recipe of Agent-PVT-T.
#
#   bash tools/dist_train.sh configs/flatten/fpn_flatten-pvt-t_8xb2-40k_ade20k-512x512.py 8
#
# Expected: 37.21 mIoU, 48.95 mAcc (reported by the authors, without code, config or weights; so
# it is not known with which schedule, learning rate, decay and drop path).
# Cost: 16 M parameters, 169 GFLOPs at 512x2048 (reported by the authors; counted here: 128).
_base_ = "../agent_pvt/fpn_agent-pvt-t_8xb2-40k_ade20k-512x512.py"

model = dict(
    backbone=dict(type="FLattenPVT", init_cfg=dict(checkpoint="checkpoints/flatten_pvt_t.pth"))
)
