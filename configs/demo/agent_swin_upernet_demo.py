# UPerNet with Agent-Swin-T on the generated shapes, from scratch.
#
#   python tools/make_demo_data.py
#   python tools/train.py configs/demo/agent_swin_upernet_demo.py
_base_ = "./agent_pvt_semantic_fpn_demo.py"

norm_cfg = dict(type="GN", num_groups=16)
model = dict(
    backbone=dict(
        _delete_=True,
        type="AgentSwinTransformer",
        arch="tiny",
        agent_shapes="bounded",
    ),
    neck=None,
    decode_head=dict(
        _delete_=True,
        type="UPerHead",
        in_channels=[96, 192, 384, 768],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=96,
        dropout_ratio=0.0,
        num_classes=8,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type="FCNHead",
        in_channels=384,
        in_index=2,
        channels=96,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=8,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
)
