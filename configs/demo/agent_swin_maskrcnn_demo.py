# Mask R-CNN with Agent-Swin-T on the generated shapes, from scratch.
#
#   python tools/make_demo_data.py
#   python tools/train.py configs/demo/agent_swin_maskrcnn_demo.py
_base_ = "./agent_pvt_maskrcnn_demo.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="AgentSwinTransformer",
        arch="tiny",
        agent_shapes="bounded",
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
