"""Every config builds and runs, and the recipes are those published."""

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

ROOT = Path(__file__).parents[1] / "configs"
PATHS = sorted(p for p in ROOT.rglob("*.py") if "_base_" not in p.relative_to(ROOT).parts)
NAMES = [str(path.relative_to(ROOT).with_suffix("")) for path in PATHS]
ADAPTERS = {"mmdet": "mmdet_agent", "mmseg": "mmseg_agent"}
SIZE = 96  # side of the images, in pixels

GRIDS = ((12, 12), (16, 16), (28, 28), (28, 28))
MEAN_STD = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
PVT_OPTIMISER = {
    "type": "OptimWrapper",  # and so no paramwise_cfg, no clip_grad
    "optimizer": {"type": "AdamW", "lr": 2e-4, "weight_decay": 1e-4},
}
# What is published of each recipe: a key of the config, and its value in whole. A key of a list's
# item is its number, or a type of which the list has one.
RECIPES: dict[str, dict[str, Any]] = {
    "agent_pvt_maskrcnn": {
        "optim_wrapper": PVT_OPTIMISER,
        "param_scheduler": [
            {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 500},
            {
                "type": "MultiStepLR",
                "begin": 0,
                "end": 12,
                "by_epoch": True,
                "milestones": [8, 11],
                "gamma": 0.1,
            },
        ],
        "train_cfg.type": "EpochBasedTrainLoop",
        "train_cfg.max_epochs": 12,
        "auto_scale_lr": {"enable": False, "base_batch_size": 16},
        "train_dataloader.batch_size": 2,
        "train_dataloader.dataset.type": "CocoDataset",
        "train_dataloader.dataset.pipeline.Resize": {"scale": (1333, 800), "keep_ratio": True},
        "train_dataloader.dataset.pipeline.RandomFlip": {"prob": 0.5},
        "test_dataloader.dataset.pipeline.Resize": {"scale": (1333, 800), "keep_ratio": True},
        "test_evaluator.metric": ["bbox", "segm"],
        "model.data_preprocessor.pad_size_divisor": 32,
        "model.data_preprocessor.bgr_to_rgb": True,
        "model.backbone.arch": "tiny",
        "model.backbone.drop_path_rate": 0.1,
        "model.neck.in_channels": [64, 128, 320, 512],
        "model.roi_head.bbox_head.num_classes": 80,
        "model.roi_head.mask_head.num_classes": 80,
    },
    "agent_pvt_semantic_fpn": {
        "optim_wrapper": PVT_OPTIMISER,
        "param_scheduler": [
            {
                "type": "PolyLR",
                "power": 0.9,
                "eta_min": 0.0,
                "begin": 0,
                "end": 40000,
                "by_epoch": False,
            }
        ],
        "train_cfg.type": "IterBasedTrainLoop",
        "train_cfg.max_iters": 40000,
        "auto_scale_lr": {"enable": False, "base_batch_size": 16},
        "train_dataloader.batch_size": 2,
        "train_dataloader.dataset.type": "ADE20KDataset",
        "train_dataloader.dataset.pipeline.LoadAnnotations": {"reduce_zero_label": True},
        "train_dataloader.dataset.pipeline.RandomResize": {
            "scale": (2048, 512),
            "ratio_range": (0.5, 2.0),
            "keep_ratio": True,
        },
        "train_dataloader.dataset.pipeline.RandomCrop": {
            "crop_size": (512, 512),
            "cat_max_ratio": 0.75,
        },
        "train_dataloader.dataset.pipeline.RandomFlip": {"prob": 0.5},
        "train_dataloader.dataset.pipeline.PhotoMetricDistortion": {},
        "test_dataloader.dataset.pipeline.Resize": {"scale": (2048, 512), "keep_ratio": True},
        "test_dataloader.dataset.pipeline.LoadAnnotations": {"reduce_zero_label": True},
        "test_evaluator.iou_metrics": ["mIoU"],
        "model.data_preprocessor.size": (512, 512),
        "model.data_preprocessor.seg_pad_val": 255,
        "model.data_preprocessor.bgr_to_rgb": True,
        "model.test_cfg": {"mode": "whole"},
        "model.backbone.arch": "tiny",
        "model.backbone.drop_path_rate": 0.1,
        "model.neck.in_channels": [64, 128, 320, 512],
        "model.decode_head.num_classes": 150,
    },
}
PARAMETERS = {"agent_pvt_maskrcnn": 31.2, "agent_pvt_semantic_fpn": 15.3}  # millions
FACTS = [(name, key) for name, facts in RECIPES.items() for key in facts]


@pytest.fixture(autouse=True)
def own_scope() -> Iterator[None]:
    """Leave no default scope behind."""
    yield
    DefaultScope._instance_dict.clear()


@functools.cache
def load(name: str) -> Config:
    """A config, read once: nobody may change it."""
    return Config.fromfile(ROOT / f"{name}.py")


@functools.cache
def model_of(name: str) -> nn.Module:
    """The model of a config, built once as mmengine's Runner does: from its scope's registry."""
    cfg = load(name)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(copy.deepcopy(cfg.model))


def find(cfg: Config, key: str) -> Any:
    """The value at a dotted key, as plain dicts and lists."""
    node = without_scope(cfg._cfg_dict.to_dict())
    for part in key.split("."):
        if isinstance(node, list):
            (item,) = [dict(item) for item in node if item["type"] == part]
            node = {name: value for name, value in item.items() if name != "type"}
        else:
            node = node[part]
    return node


def without_scope(node: Any) -> Any:
    """Without mmengine's notes of where a base config comes from."""
    if isinstance(node, dict):
        return {key: without_scope(child) for key, child in node.items() if key != "_scope_"}
    return [without_scope(child) for child in node] if isinstance(node, list) else node


def detection_sample() -> Any:
    """Ground truth of two boxes with masks."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    masks = np.zeros((2, SIZE, SIZE), np.uint8)
    masks[0, 8:40, 8:56] = masks[1, 40:88, 30:80] = 1
    boxes = torch.tensor([[8.0, 8, 56, 40], [30, 40, 80, 88]])
    sample = DetDataSample(
        gt_instances=InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 3]), masks=BitmapMasks(masks, SIZE, SIZE)
        )
    )
    sample.set_metainfo({"scale_factor": (1.0, 1.0)})
    return sample


def segmentation_sample() -> Any:
    """Ground truth of five classes and ignored pixels."""
    from mmseg.structures import SegDataSample

    labels = torch.arange(SIZE)[None, :, None].expand(1, SIZE, SIZE) // 16
    return SegDataSample(gt_sem_seg=PixelData(data=torch.where(labels == 5, 255, labels)))


def packed_batch(name: str, model: Any, training: bool) -> dict[str, Any]:
    """Two random images with ground truth, as a loader packs them and the model's own
    preprocessor hands them on."""
    detection = load(name).default_scope == "mmdet"
    samples = [detection_sample() if detection else segmentation_sample() for _ in range(2)]
    shape = (SIZE, SIZE)
    for sample in samples:
        sample.set_metainfo({"img_shape": shape, "ori_shape": shape, "pad_shape": shape})
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    if not detection and training:
        model.data_preprocessor.size = shape  # the crop of the recipe is slow on a CPU
    batch = {"inputs": list(pixels), "data_samples": samples}
    return model.data_preprocessor(batch, training=training)


def backbones(node: Any) -> Iterator[dict[str, Any]]:
    """Every backbone of a model config, wherever it is."""
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from backbones(child)
    if isinstance(node, dict) and isinstance(node.get("backbone"), dict):
        yield node["backbone"]


# ---- every config ----


def test_there_are_configs_of_both_tasks_and_a_demo_of_each() -> None:
    assert RECIPES.keys() <= set(NAMES)
    assert {load(name).default_scope for name in NAMES if "/" in name} == ADAPTERS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_config_imports_its_adapter(name: str) -> None:
    cfg = load(name)
    assert cfg.custom_imports.to_dict() == {
        "imports": [ADAPTERS[cfg.default_scope]],
        "allow_failed_imports": False,
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_backbone_has_classes(name: str) -> None:
    found = list(backbones(load(name).model.to_dict()))
    assert found
    assert not any("num_classes" in backbone for backbone in found)


@pytest.mark.parametrize("name", NAMES)
def test_the_backbone_comes_from_the_registry_of_the_adapter(name: str) -> None:
    from agent_attention.openmmlab.backbones import AgentPVT

    assert type(model_of(name).backbone) is AgentPVT
    assert load(name).model.backbone.type == "AgentPVT"


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_step_reaches_the_first_layer(name: str) -> None:
    model = model_of(name).train()
    losses = model(**packed_batch(name, model, training=True), mode="loss")
    loss, logged = model.parse_losses(losses)
    assert all(torch.isfinite(value) for value in logged.values())
    expected = {"mmdet": ["loss_cls", "loss_bbox", "loss_mask"], "mmseg": ["decode.loss_ce"]}
    assert set(expected[load(name).default_scope]) <= logged.keys()
    loss.backward()
    first = next(model.backbone.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    model.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_prediction_step_gives_a_result_for_each_image(name: str) -> None:
    model = model_of(name).eval()
    results = model(**packed_batch(name, model, training=False), mode="predict")
    assert len(results) == 2
    for result in results:
        check = check_instances if hasattr(result, "pred_instances") else check_labels
        check(result, load(name).model)


def check_instances(result: Any, cfg: Any) -> None:
    found = result.pred_instances
    count = len(found.scores)
    assert found.bboxes.shape == (count, 4)
    assert found.masks.shape == (count, SIZE, SIZE)
    assert found.labels.numel() == 0 or found.labels.max() < cfg.roi_head.bbox_head.num_classes


def check_labels(result: Any, cfg: Any) -> None:
    labels: Tensor = result.pred_sem_seg.data
    assert labels.shape == (1, SIZE, SIZE)
    assert 0 <= labels.min() <= labels.max() < cfg.decode_head.num_classes


# ---- the recipes ----


@pytest.mark.parametrize(("name", "key"), FACTS, ids=[f"{name}-{key}" for name, key in FACTS])
def test_a_recipe_is_as_published(name: str, key: str) -> None:
    assert find(load(name), key) == RECIPES[name][key]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_agents(name: str) -> None:
    backbone = model_of(name).backbone
    for stage, grid in enumerate(GRIDS, 1):
        for block in getattr(backbone, f"block{stage}"):
            assert tuple(block.attn.agent_shape) == grid


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_normalises_as_imagenet_does(name: str) -> None:
    preprocessor = load(name).model.data_preprocessor
    assert {key: preprocessor[key] for key in MEAN_STD} == MEAN_STD


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_starts_from_pretrained_weights(name: str) -> None:
    init_cfg = load(name).model.backbone.init_cfg
    assert init_cfg.type == "Pretrained"
    assert init_cfg.checkpoint == "checkpoints/agent_pvt_t.pth"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_number_of_parameters(name: str) -> None:
    count = sum(parameter.numel() for parameter in model_of(name).parameters())
    assert round(count / 1e6, 1) == PARAMETERS[name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_augments_by_nothing_else(name: str) -> None:
    found = {step.type for step in load(name).train_dataloader.dataset.pipeline}
    published = {key.rpartition(".")[2] for key in RECIPES[name] if "train_dataloader" in key}
    loading = {"LoadImageFromFile", "LoadAnnotations", "PackDetInputs", "PackSegInputs"}
    assert found - loading <= published
