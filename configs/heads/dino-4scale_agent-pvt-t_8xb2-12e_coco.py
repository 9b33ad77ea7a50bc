# DINO, 4 scales, with Agent-PVT-T, 12 epochs, COCO 2017.
#
#   bash tools/dist_train.sh configs/heads/dino-4scale_agent-pvt-t_8xb2-12e_coco.py 8
#
# Expected: no score is known; the schedule is the stock config's own, written by
# tools/with_backbone.py.
_base_ = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="AgentPVT",
        arch="tiny",
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
        frozen_stages=1,
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/agent_pvt_t.pth"),
    ),
    neck=dict(in_channels=[128, 320, 512]),
)
optim_wrapper = dict(constructor="NoDecayConstructor")
custom_imports = dict(imports=["mmdet_agent"], allow_failed_imports=False)
