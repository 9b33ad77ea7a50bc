"""The further backbones in every stock head of our recipes: a training step, a prediction, a count.

Recipes of Agent-PVT and Agent-Swin, which test_configs.py runs, lend theirs. Backbone, neck and
heads are narrow. Plain backbones have the necks that make a pyramid of a map of stride 16; their
heads are those of the others.
"""

import copy
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from one_step import check_prediction, check_training_step, few_proposals
from small import narrowed, read, recipes

import mmdet_agent  # noqa: F401  (registers the backbones)
import mmseg_agent  # noqa: F401
from agent_attention.backbones import BACKBONES
from agent_toolkit.commands import flops as get_flops

HEADS = {  # a recipe that has it
    "Mask R-CNN": "mask-rcnn_agent-pvt-t_fpn_1x_coco",
    "Cascade Mask R-CNN": "cascade-mask-rcnn_agent-swin-t_fpn_1x_coco",
    "RetinaNet": "retinanet_agent-pvt-t_fpn_1x_coco",
    "Semantic FPN": "fpn_agent-pvt-t_8xb2-40k_ade20k-512x512",
    "UPerNet": "upernet_agent-swin-t_8xb2-160k_ade20k-512x512",
}
PYRAMID = {"type": "SimpleFeaturePyramid", "in_channels": 8, "out_channels": 256}
LEVELS = {"type": "MultiLevelNeck", "in_channels": [8] * 4, "scales": [4, 2, 1, 0.5]}
COUNTED = ("RetinaNet", "Semantic FPN")  # those counted soonest; test_zoo.py counts the others
SHAPE = (64, 96)


def config(family: str, head: str) -> Config:
    """A recipe with its head, and another backbone."""
    cfg = copy.deepcopy(read(recipes()[HEADS[head]]))
    model = cfg.model.to_dict()
    model["backbone"] = {"type": BACKBONES[family].__name__}
    if family == "vit":
        stand_on_plain(model)
    cfg.model = narrowed(model)
    few_proposals(cfg.model)
    return cfg


def stand_on_plain(model: dict[str, Any]) -> None:
    """Give a model the neck of a plain backbone, in place."""
    if model["type"] != "EncoderDecoder":
        model["backbone"]["out_indices"] = (11,)
        model["neck"] = dict(PYRAMID)
        if "bbox_head" in model:
            model["bbox_head"]["anchor_generator"]["strides"] = [4, 8, 16, 32, 64]
        return
    channels = 256
    model["neck"] = {**LEVELS, "out_channels": channels}
    model["decode_head"]["in_channels"] = [channels] * 4
    if "auxiliary_head" in model:
        model["auxiliary_head"]["in_channels"] = channels


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("family", [each for each in BACKBONES if each not in ("pvt", "swin")])
def test_a_stock_head_trains_predicts_and_is_counted(family: str, head: str) -> None:
    cfg = config(family, head)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    assert type(model.backbone).__mro__[1] is BACKBONES[family]
    check_training_step(model)
    check_prediction(model)
    if head in COUNTED:
        counts = get_flops.count(cfg, SHAPE)
        whole = counts["model"]
        assert whole.multiply_adds > counts["backbone"].multiply_adds > 0
        assert whole.parameters == sum(parameter.numel() for parameter in model.parameters())
