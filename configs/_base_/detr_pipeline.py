# COCO with the augmentation of DETR (arXiv 2005.12872, appendix A.4): resize to one of many scales,
# or resize, crop and resize.
detr_scales = [(short, 1333) for short in range(480, 801, 32)]
detr_pipeline = [
    dict(type="LoadImageFromFile", backend_args=None),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomFlip", prob=0.5),
    dict(
        type="RandomChoice",
        transforms=[
            [dict(type="RandomChoiceResize", scales=detr_scales, keep_ratio=True)],
            [
                dict(
                    type="RandomChoiceResize",
                    scales=[(400, 1333), (500, 1333), (600, 1333)],
                    keep_ratio=True,
                ),
                dict(
                    type="RandomCrop",
                    crop_type="absolute_range",
                    crop_size=(384, 600),
                    allow_negative_crop=True,
                ),
                dict(type="RandomChoiceResize", scales=detr_scales, keep_ratio=True),
            ],
        ],
    ),
    dict(type="PackDetInputs"),
]
