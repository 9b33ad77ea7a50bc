# Semantic FPN with Agent-PVT-T from scratch on a few tens of small ADE20K-like images of your own,
# in a quarter of an hour on two CPU cores. With weights or thousands of images, take the recipe.
#
#   python tools/train.py configs/demo/agent_pvt_semantic_fpn_small.py --data-root /data/streets \
#       --train-images train --train-ann train_labels --val-images val --val-ann val_labels \
#       --classes classes.txt
_base_ = "../agent_pvt/fpn_agent-pvt-t_8xb2-40k_ade20k-512x512.py"

scale = (480, 360)  # long and short side that images are resized to
crop_size = (224, 224)
max_iters = 900

model = dict(
    # the backbone drops rows and columns that fill no patch of 32 pixels: pad tested images
    data_preprocessor=dict(size=crop_size, test_cfg=dict(size_divisor=32)),
    backbone=dict(
        # few tokens, few agents
        agent_shapes="bounded",
        drop_path_rate=0.0,
        init_cfg=None,
    ),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="RandomResize", scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    # The ground truth is loaded after the resize, so that it keeps its own size.
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=5e-4))
# without weights to start from, the first steps must be small
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=0.9, eta_min=0.0, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=150)
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(interval=max_iters, max_keep_ckpts=1)
)
randomness = dict(seed=0)
auto_scale_lr = dict(base_batch_size=4)
