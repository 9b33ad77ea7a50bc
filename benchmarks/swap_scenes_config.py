# A plain ViT for the swap, trained on generated scenes in minutes on a CPU.
#
#   python tools/make_demo_data.py work_dirs/scenes --size 320 --train 400 --val 40
#   python tools/train.py benchmarks/swap_scenes_config.py --work-dir work_dirs/swap_scenes
#   python tools/swap.py benchmarks/swap_scenes_config.py work_dirs/swap_scenes/iter_600.pth
#
# mmseg's ViT, 6 blocks of 192 channels on patches of 8 pixels, and one linear layer. It learns on
# crops of 160 pixels (400 tokens) and is tested on whole scenes (1600 tokens).
_base_ = "../configs/demo/agent_pvt_semantic_fpn_demo.py"

data_root = "work_dirs/scenes/ade"
max_iters = 600
width = 192

model = dict(
    data_preprocessor=dict(size=(160, 160), test_cfg=dict(size_divisor=8)),
    backbone=dict(
        _delete_=True,
        type="VisionTransformer",
        img_size=160,
        patch_size=8,
        embed_dims=width,
        num_layers=6,
        num_heads=3,
        with_cls_token=False,
        final_norm=True,
        interpolate_mode="bicubic",
    ),
    neck=None,
    decode_head=dict(
        _delete_=True,
        type="FCNHead",
        in_channels=width,
        channels=width,
        num_convs=0,
        concat_input=False,
        dropout_ratio=0.0,
        num_classes=8,
        loss_decode=dict(type="CrossEntropyLoss"),
    ),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="RandomCrop", crop_size=(160, 160)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="PolyLR", power=0.9, eta_min=0.0, begin=50, end=max_iters, by_epoch=False),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))
