# SegFormer's head with Agent-PVT-T, 160k iterations, ADE20K.
#
#   bash tools/dist_train.sh configs/heads/segformer_agent-pvt-t_8xb2-160k_ade20k-512x512.py 8
#
# Expected: no score is known; the schedule is the stock config's own, written by
# tools/with_backbone.py.
# mmengine finds 'mmseg::' in one of the two distributions that install mmseg alone
_base_ = (
    __import__("mmseg").__path__[0]
    + "/.mim/configs/segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py"
)

model = dict(
    backbone=dict(
        _delete_=True,
        type="AgentPVT",
        arch="tiny",
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1,
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/agent_pvt_t.pth"),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(constructor="NoDecayConstructor")
custom_imports = dict(imports=["mmseg_agent"], allow_failed_imports=False)
