# Mask2Former for instances with Agent-Swin-T, 50 epochs of large-scale jitter, COCO 2017.
#
#   bash tools/dist_train.sh configs/heads/mask2former_agent-swin-t_8xb2-lsj-50e_coco.py 8
#
# Expected: no score is known; the schedule is the stock config's own, written by
# tools/with_backbone.py.
_base_ = "mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py"

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
custom_imports = dict(imports=["mmdet_agent"], allow_failed_imports=False)
