# RTMDet's tiny head with Agent-PVT-T, 300 epochs, COCO 2017.
#
#   bash tools/dist_train.sh configs/heads/rtmdet_agent-pvt-t_8xb32-300e_coco.py 8
#
# Expected: no score is known; the schedule is the stock config's own, written by
# tools/with_backbone.py.
_base_ = "mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py"

optim_wrapper = dict(constructor="NoDecayConstructor")
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        _delete_=True,
        type="AgentPVT",
        arch="tiny",
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/agent_pvt_t.pth"),
    ),
    neck=dict(in_channels=[128, 320, 512]),
)
custom_imports = dict(imports=["mmdet_agent"], allow_failed_imports=False)
