# RetinaNet with Agent-PVT-L, 1x (12 epochs), COCO 2017.
#
#   bash tools/dist_train.sh configs/agent_pvt/retinanet_agent-pvt-l_fpn_1x_coco.py 8
#
# Expected: 46.8 box AP (reported by the authors, with 8 GPUs of 2 images each).
# Cost: 58 M parameters, 492 GFLOPs at 1280x800 (reported by the authors).
_base_ = "./retinanet_agent-pvt-t_fpn_1x_coco.py"

model = dict(
    backbone=dict(
        arch="large",
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint="checkpoints/agent_pvt_l.pth"),
    )
)
