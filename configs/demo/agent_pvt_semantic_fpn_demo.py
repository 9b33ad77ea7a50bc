# Semantic FPN with Agent-PVT-T on the generated shapes, from scratch, in minutes on two CPU cores.
#
#   python tools/make_demo_data.py
#   python tools/train.py configs/demo/agent_pvt_semantic_fpn_demo.py
#
# Nothing in the pipeline is random: a run does not depend on the number of processes or workers.
_base_ = "../agent_pvt/fpn_agent-pvt-t_8xb2-40k_ade20k-512x512.py"

classes = ("grass", "sand", "water", "ellipse", "rectangle", "triangle", "star", "cross")
data_root = "data/demo/ade"
max_iters = 280
width = 96

model = dict(
    # images of one batch differ in size: pad them, with label 255, which no loss counts; and pad
    # tested ones, of which the backbone would drop rows and columns that fill no patch of 32 pixels
    data_preprocessor=dict(size=(160, 160), test_cfg=dict(size_divisor=32)),
    backbone=dict(
        # few tokens, few agents
        agent_shapes="bounded",
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=dict(out_channels=width),
    decode_head=dict(
        in_channels=[width] * 4,
        channels=width,
        dropout_ratio=0.0,
        num_classes=len(classes),
        # statistics of one image, so that they do not depend on the batch of a process
        norm_cfg=dict(_delete_=True, type="GN", num_groups=16),
    ),
)

dataset = dict(
    type="NamedSegDataset",
    data_root=data_root,
    metainfo=dict(classes=classes),
    reduce_zero_label=True,
    img_suffix=".jpg",
    seg_map_suffix=".png",
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(**dataset, pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=1, dataset=dict(**dataset, pipeline=train_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type="PolyLR", power=0.9, eta_min=0.0, begin=30, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(interval=max_iters, max_keep_ckpts=1)
)
randomness = dict(seed=0)
auto_scale_lr = dict(base_batch_size=8)
