# Mask2Former with Agent-Swin-T, 160k iterations, ADE20K.
#
#   bash tools/dist_train.sh configs/heads/mask2former_agent-swin-t_8xb2-160k_ade20k-512x512.py 8
#
# Expected: no score is known; the schedule is the stock config's own, written by
# tools/with_backbone.py.
# mmengine finds 'mmseg::' in one of the two distributions that install mmseg alone
_base_ = (
    __import__("mmseg").__path__[0]
    + "/.mim/configs/mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py"
)

custom_imports = dict(imports=["mmdet.models", "mmseg_agent"])
model = dict(
    backbone=dict(
        _delete_=True,
        type="AgentSwinTransformer",
        arch="tiny",
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.3,
        init_cfg=dict(type="Pretrained", checkpoint="checkpoints/agent_swin_t.pth"),
    ),
)
optim_wrapper = dict(constructor="NoDecayConstructor")
