"""What the authors published of each recipe, and what follows from it for its config.

Of the further recipes nobody published the settings: they are those of their neighbours.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# What the authors published: lr, weight decay, drop path, parameters in millions, scores.
PUBLISHED = """
agent_pvt/mask-rcnn_agent-pvt-t_fpn_1x_coco                  2e-4  1e-4  0.1   31  41.4 38.7
agent_pvt/mask-rcnn_agent-pvt-s_fpn_1x_coco                  2e-4  1e-4  0.2   40  44.5 41.2
agent_pvt/mask-rcnn_agent-pvt-m_fpn_1x_coco                  2e-4  1e-4  0.1   56  45.9 42.0
agent_pvt/mask-rcnn_agent-pvt-l_fpn_1x_coco                  2e-4  1e-4  0.2   68  46.9 42.8
agent_pvt/retinanet_agent-pvt-t_fpn_1x_coco                  1e-4  1e-4  0.1   21  40.3
agent_pvt/retinanet_agent-pvt-s_fpn_1x_coco                  1e-4  1e-4  0.1   30  44.1
agent_pvt/retinanet_agent-pvt-m_fpn_1x_coco                  1e-4  1e-4  0.2   46  45.8
agent_pvt/retinanet_agent-pvt-l_fpn_1x_coco                  1e-4  1e-4  0.3   58  46.8
agent_swin/mask-rcnn_agent-swin-t_fpn_1x_coco                1e-4  0.05  0.1   48  44.6 40.7
agent_swin/mask-rcnn_agent-swin-s_fpn_1x_coco                1e-4  0.05  0.1   69  47.2 42.7
agent_swin/mask-rcnn_agent-swin-t_fpn_3x_coco                1e-4  0.05  0.1   48  47.3 42.7
agent_swin/mask-rcnn_agent-swin-s_fpn_3x_coco                1e-4  0.05  0.1   69  48.9 43.8
agent_swin/cascade-mask-rcnn_agent-swin-t_fpn_1x_coco        1e-4  0.05  0.1   86  49.2 42.7
agent_swin/cascade-mask-rcnn_agent-swin-t_fpn_3x_coco        1e-4  0.05  0.1   86  51.4 44.5
agent_swin/cascade-mask-rcnn_agent-swin-s_fpn_3x_coco        1e-4  0.05  0.1  107  52.6 45.5
agent_swin/cascade-mask-rcnn_agent-swin-b_fpn_3x_coco        1e-4  0.05  0.4  145  52.6 45.3
agent_pvt/fpn_agent-pvt-t_8xb2-40k_ade20k-512x512            2e-4  1e-4  0.1   15  40.18 51.76
agent_pvt/fpn_agent-pvt-s_8xb2-40k_ade20k-512x512            2e-4  1e-4  0.1   24  44.18 56.17
agent_pvt/fpn_agent-pvt-m_8xb2-40k_ade20k-512x512            2e-4  1e-4  0.2   40  44.30 56.42
agent_pvt/fpn_agent-pvt-l_8xb2-40k_ade20k-512x512            2e-4  1e-4  0.1   52  46.52 58.50
agent_swin/upernet_agent-swin-t_8xb2-160k_ade20k-512x512     6e-5  0.01  0.3   61  46.68 58.53
agent_swin/upernet_agent-swin-s_8xb2-160k_ade20k-512x512     6e-5  0.01  0.3   81  48.08 59.78
agent_swin/upernet_agent-swin-b_8xb2-160k_ade20k-512x512     6e-5  0.01  0.5  121  48.73 60.01
"""

# The same of the further ones: scores only where the authors report some, without a config; and
# parameters as counted here where they report none.
FURTHER = """
flatten/mask-rcnn_flatten-pvt-t_fpn_1x_coco                  2e-4  1e-4  0.1   32  38.2 37.0
flatten/retinanet_flatten-pvtv2-b0_fpn_1x_coco               1e-4  1e-4  0.1   13
flatten/mask-rcnn_flatten-swin-t_fpn_1x_coco                 1e-4  0.05  0.1   49  44.2 40.2
flatten/mask-rcnn_flatten-swin-t_fpn_3x_coco                 1e-4  0.05  0.1   49  46.5 42.1
flatten/mask-rcnn_flatten-cswin-t_fpn_3x_coco                1e-4  0.05  0.1   41
flatten/cascade-mask-rcnn_flatten-swin-t_fpn_3x_coco         1e-4  0.05  0.1   87  50.8 44.1
flatten/cascade-mask-rcnn_flatten-swin-s_fpn_3x_coco         1e-4  0.05  0.1  108  52.2 45.4
flatten/fpn_flatten-pvt-t_8xb2-40k_ade20k-512x512            2e-4  1e-4  0.1   16  37.21 48.95
flatten/upernet_flatten-swin-t_8xb2-160k_ade20k-512x512      6e-5  0.01  0.3   60  44.82 57.01
flatten/upernet_flatten-swin-s_8xb2-160k_ade20k-512x512      6e-5  0.01  0.3   82  48.14 59.31
flatten/upernet_flatten-cswin-t_8xb2-160k_ade20k-512x512     6e-5  0.01  0.3   51
agent_cswin/mask-rcnn_agent-cswin-t_fpn_3x_coco              1e-4  0.05  0.1   40
agent_cswin/upernet_agent-cswin-t_8xb2-160k_ade20k-512x512   6e-5  0.01  0.3   50
agent_deit/mask-rcnn_agent-deit-s_sfp_lsj-100e_coco          1e-4  0.1   0.1   45
agent_deit/upernet_agent-deit-s_8xb2-160k_ade20k-512x512     6e-5  0.01  0.1   58
"""


@dataclass(frozen=True)
class Recipe:
    """A row of the tables; ``model`` is such as ('mask-rcnn', 'agent-pvt', 't', '1x')."""

    name: str
    lr: float
    weight_decay: float
    drop_path: float
    parameters: int
    scores: tuple[str, ...]

    @property
    def task(self) -> str:
        return "coco" if self.name.endswith("coco") else "ade"

    @functools.cached_property
    def model(self) -> tuple[str, ...]:
        family = r"((?:agent|flatten)-[a-z0-9]+)-([a-z0-9]+)"
        found = re.search(rf"/(.+)_{family}_(?:fpn|sfp|8xb2)[_-]([0-9a-z-]+)_", self.name)
        assert found is not None
        return found.groups()


def recipes() -> Iterator[Recipe]:
    for row in filter(None, (PUBLISHED + FURTHER).splitlines()):
        name, lr, weight_decay, drop_path, parameters, *scores = row.split()
        rates = (float(lr), float(weight_decay), float(drop_path))
        yield Recipe(name, *rates, int(parameters), tuple(scores))


RECIPES = {recipe.name: recipe for recipe in recipes()}
SHORT = {  # the short door to a recipe, and the parameters of its model in millions
    "agent_pvt_maskrcnn": ("agent_pvt/mask-rcnn_agent-pvt-t_fpn_1x_coco", 31.2),
    "agent_pvt_semantic_fpn": ("agent_pvt/fpn_agent-pvt-t_8xb2-40k_ade20k-512x512", 15.3),
}

# Backbones with the recipes of PVT: one scale, all parameters decayed; others have those of Swin.
PVT_LIKE = {"agent-pvt", "flatten-pvt", "flatten-pvtv2"}
_TABLES = ["an_bias", "na_bias", "ah_bias", "aw_bias", "ha_bias", "wa_bias"]
_SWIN = ["absolute_pos_embed", "relative_position_bias_table", "norm", *_TABLES]
_FLATTEN = ["relative_position_bias_table", "norm", "positional_encoding", ".scale"]
UNDECAYED = {
    "agent-swin": _SWIN,
    "agent-cswin": _SWIN,
    "agent-deit": ["pos_embed", "cls_token", "norm", *_TABLES, "ac_bias", "ca_bias"],
    "flatten-swin": _FLATTEN,
    "flatten-cswin": _FLATTEN,
}
NOT_THERE = {  # of these what the backbone does without, by family
    "agent-swin": {"absolute_pos_embed"},
    "agent-cswin": {"absolute_pos_embed", "relative_position_bias_table"},
    "flatten-cswin": {"relative_position_bias_table"},
}
LAYER_DECAY = {  # the optimizer of ViTDet, arXiv 2203.16527, appendix A.2
    "constructor": "LayerDecayConstructor",
    "paramwise_cfg": {"layer_decay_rate": 0.7, "flat_decay_mult": 0.0},
}
BATCHES = {"lsj-100e": 8}  # images a GPU, of eight; 2 in all others


def warm_up(factor: float, end: int) -> dict[str, Any]:
    return {
        "type": "LinearLR",
        "start_factor": factor,
        "by_epoch": False,
        "begin": 0,
        "end": end,
    }


def steps(end: int, *milestones: int, by_epoch: bool = True) -> dict[str, Any]:
    where = {"begin": 0, "end": end, "by_epoch": by_epoch, "milestones": list(milestones)}
    return {"type": "MultiStepLR", "gamma": 0.1, **where}


def poly(power: float, begin: int, end: int) -> dict[str, Any]:
    where = {"begin": begin, "end": end, "by_epoch": False}
    return {"type": "PolyLR", "power": power, "eta_min": 0.0, **where}


SCHEDULES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "1x": ({"max_epochs": 12}, [warm_up(0.001, 500), steps(12, 8, 11)]),
    "3x": ({"max_epochs": 36}, [warm_up(0.001, 500), steps(36, 27, 33)]),
    "40k": ({"max_iters": 40000}, [poly(0.9, 0, 40000)]),
    "160k": ({"max_iters": 160000}, [warm_up(1e-6, 1500), poly(1.0, 1500, 160000)]),
    "lsj-100e": (
        {"max_iters": 184375},
        [warm_up(0.001, 250), steps(184375, 163889, 177546, by_epoch=False)],
    ),
}

FLIP = {"type": "RandomFlip", "prob": 0.5}
COCO_SCALE = {"type": "Resize", "scale": (1333, 800), "keep_ratio": True}
DETR_SCALES = {
    "type": "RandomChoiceResize",
    "scales": [(short, 1333) for short in (*range(480, 800, 32), 800)],
    "keep_ratio": True,
}
AUGMENTATION = {
    "pvt coco": [COCO_SCALE, FLIP],
    "swin coco": [
        FLIP,
        {
            "type": "RandomChoice",
            "transforms": [
                [DETR_SCALES],
                [
                    {**DETR_SCALES, "scales": [(400, 1333), (500, 1333), (600, 1333)]},
                    {
                        "type": "RandomCrop",
                        "crop_type": "absolute_range",
                        "crop_size": (384, 600),
                        "allow_negative_crop": True,
                    },
                    DETR_SCALES,
                ],
            ],
        },
    ],
    "ade": [
        {
            "type": "RandomResize",
            "scale": (2048, 512),
            "ratio_range": (0.5, 2.0),
            "keep_ratio": True,
        },
        {"type": "RandomCrop", "crop_size": (512, 512), "cat_max_ratio": 0.75},
        FLIP,
        {"type": "PhotoMetricDistortion"},
    ],
}
AUGMENTATION["lsj coco"] = [
    FLIP,
    {
        "type": "RandomResize",
        "scale": (1024, 1024),
        "ratio_range": (0.1, 2.0),
        "keep_ratio": True,
    },
    {
        "type": "RandomCrop",
        "crop_type": "absolute_range",
        "crop_size": (1024, 1024),
        "recompute_bbox": True,
        "allow_negative_crop": True,
    },
    {"type": "FilterAnnotations", "min_gt_bbox_wh": (1e-2, 1e-2)},
    {"type": "Pad", "size": (1024, 1024), "pad_val": {"img": (114, 114, 114)}},
]
TEST_SCALES = {"pvt coco": (1333, 800), "swin coco": (1333, 800), "lsj coco": (1024, 1024)}
TEST_SCALES["ade"] = (2048, 512)
LOADING = {"LoadImageFromFile", "LoadAnnotations", "PackDetInputs", "PackSegInputs"}
IMAGENET = {
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
}
HEADS: dict[str, dict[str, Any]] = {
    "mask-rcnn": {
        "type": "MaskRCNN",
        "roi_head.bbox_head.num_classes": 80,
        "roi_head.mask_head.num_classes": 80,
        "data_preprocessor.pad_size_divisor": 32,
    },
    "cascade-mask-rcnn": {
        "type": "CascadeRCNN",
        "roi_head.bbox_head.*.type": ["ConvFCBBoxHead"] * 3,
        "roi_head.bbox_head.*.num_classes": [80] * 3,
        "roi_head.bbox_head.*.num_shared_convs": [4] * 3,
        "roi_head.bbox_head.*.num_shared_fcs": [1] * 3,
        "roi_head.bbox_head.*.norm_cfg.type": ["SyncBN"] * 3,
        "roi_head.bbox_head.*.reg_class_agnostic": [False] * 3,
        "roi_head.bbox_head.*.reg_decoded_bbox": [True] * 3,
        "roi_head.bbox_head.*.loss_bbox": [{"type": "GIoULoss", "loss_weight": 10.0}] * 3,
        "roi_head.bbox_head.*.bbox_coder.target_stds": [
            [0.1, 0.1, 0.2, 0.2],
            [0.05, 0.05, 0.1, 0.1],
            [0.033, 0.033, 0.067, 0.067],
        ],
        "roi_head.mask_head.num_classes": 80,
        "data_preprocessor.pad_size_divisor": 32,
    },
    "retinanet": {
        "type": "RetinaNet",
        "bbox_head.num_classes": 80,
        "neck.start_level": 1,
        "neck.add_extra_convs": "on_input",
        "data_preprocessor.pad_size_divisor": 32,
    },
    "fpn": {
        "type": "EncoderDecoder",
        "decode_head.type": "FPNHead",
        "decode_head.num_classes": 150,
        "data_preprocessor.size": (512, 512),
        "data_preprocessor.seg_pad_val": 255,
        "test_cfg": {"mode": "whole"},
    },
    "upernet": {
        "type": "EncoderDecoder",
        "decode_head.type": "UPerHead",
        "decode_head.num_classes": 150,
        "decode_head.channels": 512,
        "decode_head.pool_scales": (1, 2, 3, 6),
        "auxiliary_head.type": "FCNHead",
        "auxiliary_head.num_classes": 150,
        "auxiliary_head.channels": 256,
        "auxiliary_head.in_index": 2,
        "auxiliary_head.loss_decode.loss_weight": 0.4,
        "data_preprocessor.size": (512, 512),
        "data_preprocessor.seg_pad_val": 255,
        "test_cfg": {"mode": "whole"},
    },
}
FAMILY_HEADS: dict[tuple[str, str], dict[str, Any]] = {  # what differs on some backbones
    ("mask-rcnn", "agent-deit"): {
        "neck.type": "SimpleFeaturePyramid",
        "rpn_head.num_convs": 2,
        "roi_head.bbox_head.type": "Shared4Conv1FCBBoxHead",
        "roi_head.bbox_head.norm_cfg": {"type": "ChannelLayerNorm"},
        "roi_head.mask_head.norm_cfg": {"type": "ChannelLayerNorm"},
    },
    ("upernet", "agent-deit"): {
        "neck.type": "MultiLevelNeck",
        "neck.scales": [4, 2, 1, 0.5],
        "neck.out_channels": 384,
        "auxiliary_head.in_index": 3,
    },
}
