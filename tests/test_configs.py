"""Every config builds and runs, and the recipes are those published."""

import copy
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
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
BACKBONES = {"pvt": "AgentPVT", "swin": "AgentSwinTransformer"}
ARCHS = {"t": "tiny", "s": "small", "m": "medium", "l": "large", "b": "base"}
GRIDS = {
    "pvt": [(12, 12), (16, 16), (28, 28), (28, 28)],
    "swin": [(9, 9), (12, 12), (14, 14), (7, 7)],
}
SIZE = 64  # side of the images, in pixels

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


@dataclass(frozen=True)
class Recipe:
    """A row of what is published; ``model`` is such as ('mask-rcnn', 'pvt', 't', '1x')."""

    name: str
    lr: float
    weight_decay: float
    drop_path: float
    parameters: int
    scores: tuple[str, ...]

    @functools.cached_property
    def model(self) -> tuple[str, ...]:
        found = re.search(r"/(.+)_agent-(\w+)-(\w)_(?:fpn|8xb2)[_-]([0-9a-z]+)_", self.name)
        assert found is not None
        return found.groups()


def recipes() -> Iterator[Recipe]:
    for row in PUBLISHED.split("\n")[1:-1]:
        name, lr, weight_decay, drop_path, parameters, *scores = row.split()
        rates = (float(lr), float(weight_decay), float(drop_path))
        yield Recipe(name, *rates, int(parameters), tuple(scores))


RECIPES = {recipe.name: recipe for recipe in recipes()}
SHORT = {  # the short door to a recipe, and the parameters of its model in millions
    "agent_pvt_maskrcnn": ("agent_pvt/mask-rcnn_agent-pvt-t_fpn_1x_coco", 31.2),
    "agent_pvt_semantic_fpn": ("agent_pvt/fpn_agent-pvt-t_8xb2-40k_ade20k-512x512", 15.3),
}

UNDECAYED = ["absolute_pos_embed", "relative_position_bias_table", "norm"]
UNDECAYED += ["an_bias", "na_bias", "ah_bias", "aw_bias", "ha_bias", "wa_bias"]


def warm_up(factor: float, end: int) -> dict[str, Any]:
    return {
        "type": "LinearLR",
        "start_factor": factor,
        "by_epoch": False,
        "begin": 0,
        "end": end,
    }


def steps(end: int, *milestones: int) -> dict[str, Any]:
    where = {"begin": 0, "end": end, "by_epoch": True, "milestones": list(milestones)}
    return {"type": "MultiStepLR", "gamma": 0.1, **where}


def poly(power: float, begin: int, end: int) -> dict[str, Any]:
    where = {"begin": begin, "end": end, "by_epoch": False}
    return {"type": "PolyLR", "power": power, "eta_min": 0.0, **where}


SCHEDULES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "1x": ({"max_epochs": 12}, [warm_up(0.001, 500), steps(12, 8, 11)]),
    "3x": ({"max_epochs": 36}, [warm_up(0.001, 500), steps(36, 27, 33)]),
    "40k": ({"max_iters": 40000}, [poly(0.9, 0, 40000)]),
    "160k": ({"max_iters": 160000}, [warm_up(1e-6, 1500), poly(1.0, 1500, 160000)]),
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


# ---- configs and models ----


@functools.cache
def load(name: str) -> Config:
    """A config, read once: nobody may change it."""
    return Config.fromfile(ROOT / f"{name}.py")


def plain(name: str) -> dict[str, Any]:
    """A config as dicts and lists, without mmengine's notes of where a base comes from."""

    def copy_of(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: copy_of(child) for key, child in node.items() if key != "_scope_"}
        return [copy_of(child) for child in node] if isinstance(node, list) else node

    return copy_of(load(name)._cfg_dict.to_dict())


def find(node: Any, key: str) -> Any:
    """The value at a dotted key; '*' stands for each item of a list."""
    first, _, rest = key.partition(".")
    if first == "*":
        return [find(item, rest) for item in node]
    return find(node[first], rest) if rest else node[first]


def task(recipe: Recipe) -> str:
    return "coco" if recipe.name.endswith("coco") else "ade"


@dataclass(frozen=True)
class Built:
    """A config and the model of it."""

    name: str
    cfg: Config
    model: Any


@pytest.fixture(scope="module", params=NAMES)
def built(request: pytest.FixtureRequest) -> Built:
    """The model of each config, as mmengine's Runner builds it: from the registry of its scope."""
    cfg = copy.deepcopy(load(request.param))
    few_proposals(cfg.model)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return Built(request.param, cfg, MODELS.build(cfg.model))


def few_proposals(node: Any) -> None:
    """Thin out what detectors sample, in place: heads for a thousand boxes are slow on a CPU."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        if key in ("nms_pre", "max_per_img", "num") and child:
            node[key] = min(child, 24)
        elif isinstance(child, dict | list):
            few_proposals(child)


def detection_sample() -> Any:
    """Ground truth of two boxes with masks."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    masks = np.zeros((2, SIZE, SIZE), np.uint8)
    masks[0, 4:24, 4:36] = masks[1, 24:60, 20:56] = 1
    boxes = torch.tensor([[4.0, 4, 36, 24], [20, 24, 56, 60]])
    sample = DetDataSample(
        gt_instances=InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 3]), masks=BitmapMasks(masks, SIZE, SIZE)
        )
    )
    sample.set_metainfo({"scale_factor": (1.0, 1.0)})
    return sample


def segmentation_sample() -> Any:
    """Ground truth of three classes and ignored pixels."""
    from mmseg.structures import SegDataSample

    labels = torch.arange(SIZE)[None, :, None].expand(1, SIZE, SIZE) // 16
    return SegDataSample(gt_sem_seg=PixelData(data=torch.where(labels == 3, 255, labels)))


def packed_batch(built: Built, training: bool) -> dict[str, Any]:
    """Two random images with ground truth, packed as by a loader and preprocessed by the model."""
    detection = built.cfg.default_scope == "mmdet"
    samples = [detection_sample() if detection else segmentation_sample() for _ in range(2)]
    shape = (SIZE, SIZE)
    for sample in samples:
        sample.set_metainfo({"img_shape": shape, "ori_shape": shape, "pad_shape": shape})
    if not detection:
        built.model.data_preprocessor.size = shape  # the recipes' crop is slow on a CPU
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (2, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    batch = {"inputs": list(pixels), "data_samples": samples}
    return built.model.data_preprocessor(batch, training=training)


def backbones(node: Any) -> Iterator[dict[str, Any]]:
    """Every backbone of a model config, wherever it is."""
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from backbones(child)
    if isinstance(node, dict) and isinstance(node.get("backbone"), dict):
        yield node["backbone"]


# ---- every config ----


def test_every_config_is_a_recipe_a_short_door_or_a_demo() -> None:
    assert {name for name in NAMES if not name.startswith("demo/")} == {*RECIPES, *SHORT}
    assert {load(name).default_scope for name in NAMES if name.startswith("demo/")} == {*ADAPTERS}


@pytest.mark.parametrize("name", NAMES)
def test_a_config_imports_its_adapter(name: str) -> None:
    cfg = load(name)
    assert cfg.custom_imports.to_dict() == {
        "imports": [ADAPTERS[cfg.default_scope]],
        "allow_failed_imports": False,
    }


@pytest.mark.parametrize("name", NAMES)
def test_no_backbone_has_classes(name: str) -> None:
    found = list(backbones(plain(name)["model"]))
    assert found
    assert not any("num_classes" in backbone for backbone in found)


def test_a_backbone_comes_from_the_registry_of_the_adapter(built: Built) -> None:
    from mmengine_agent import backbones as registered

    kind = built.cfg.model.backbone.type
    assert kind in BACKBONES.values()
    assert type(built.model.backbone) is getattr(registered, kind)


def test_a_loss_step_reaches_the_first_layer(built: Built) -> None:
    model = built.model.train()
    loss, logged = model.parse_losses(model(**packed_batch(built, training=True), mode="loss"))
    assert loss.requires_grad
    assert all(torch.isfinite(value) for value in logged.values())
    assert sum("loss_" in name for name in logged) >= (
        2 if built.cfg.default_scope == "mmdet" else 1
    )
    first = next(model.backbone.parameters())
    (gradient,) = torch.autograd.grad(loss, [first])
    assert gradient.abs().sum() > 0


@torch.no_grad()
def test_a_prediction_step_gives_a_result_for_each_image(built: Built) -> None:
    model = built.model.eval()
    results = model(**packed_batch(built, training=False), mode="predict")
    assert len(results) == 2
    for result in results:
        if built.cfg.default_scope == "mmdet":
            check_instances(result.pred_instances, model)
        else:
            check_labels(result.pred_sem_seg.data, model)


def check_instances(found: Any, model: Any) -> None:
    count = len(found.scores)
    assert found.bboxes.shape == (count, 4)
    assert found.labels.shape == (count,)
    if getattr(model, "with_mask", False):
        assert found.masks.shape == (count, SIZE, SIZE)


def check_labels(labels: Tensor, model: Any) -> None:
    assert labels.shape == (1, SIZE, SIZE)
    assert 0 <= labels.min() <= labels.max() < model.decode_head.num_classes


def test_a_model_has_the_published_size_and_agents(built: Built) -> None:
    millions = sum(parameter.numel() for parameter in built.model.parameters()) / 1e6
    if built.name.startswith("demo/"):
        assert millions < 40
        return
    recipe = RECIPES[SHORT.get(built.name, (built.name, None))[0]]
    assert abs(millions - recipe.parameters) < 1  # not all are rounded: 121.6 is published as 121
    if built.name in SHORT:
        assert round(millions, 1) == SHORT[built.name][1]
    grids = set(GRIDS[recipe.model[1]])
    assert agent_grids(built.model.backbone) <= grids
    assert len(agent_grids(built.model.backbone)) >= 2


def agent_grids(backbone: nn.Module) -> set[tuple[int, int]]:
    """The agent grids of all blocks of a backbone."""
    shapes = (getattr(module, "agent_shape", None) for module in backbone.modules())
    return {tuple(shape) for shape in shapes if shape is not None}


# ---- the recipes ----


@pytest.fixture(params=RECIPES.values(), ids=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return request.param


def test_a_backbone_is_the_published_one(recipe: Recipe) -> None:
    _, family, size, _ = recipe.model
    assert plain(recipe.name)["model"]["backbone"] == {
        "type": BACKBONES[family],
        "arch": ARCHS[size],
        "drop_path_rate": recipe.drop_path,
        "init_cfg": {
            "type": "Pretrained",
            "checkpoint": f"checkpoints/agent_{family}_{size}.pth",
        },
    }


def test_the_optimizer_is_the_published_one(recipe: Recipe) -> None:
    rates = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    # dicts in whole: no clipping, and per-parameter settings for Swin alone
    wanted: dict[str, Any] = {"type": "OptimWrapper", "optimizer": {"type": "AdamW", **rates}}
    if recipe.model[1] == "swin":
        wanted["optimizer"]["betas"] = (0.9, 0.999)
        undecayed = {name: {"decay_mult": 0.0} for name in UNDECAYED}
        wanted["paramwise_cfg"] = {"custom_keys": undecayed}
    assert plain(recipe.name)["optim_wrapper"] == wanted


def test_the_schedule_is_the_published_one(recipe: Recipe) -> None:
    cfg = plain(recipe.name)
    length, schedulers = SCHEDULES[recipe.model[3]]
    assert cfg["param_scheduler"] == schedulers
    assert length.items() <= cfg["train_cfg"].items()
    loop = "EpochBasedTrainLoop" if task(recipe) == "coco" else "IterBasedTrainLoop"
    assert cfg["train_cfg"]["type"] == loop


def test_the_batch_is_the_published_one(recipe: Recipe) -> None:
    cfg = plain(recipe.name)
    assert cfg["train_dataloader"]["batch_size"] == 2
    assert cfg["auto_scale_lr"] == {"enable": False, "base_batch_size": 16}


def test_the_augmentation_is_the_published_one(recipe: Recipe) -> None:
    pipeline = plain(recipe.name)["train_dataloader"]["dataset"]["pipeline"]
    found = [step for step in pipeline if step["type"] not in LOADING]
    _, family, _, _ = recipe.model
    assert found == AUGMENTATION["ade" if task(recipe) == "ade" else f"{family} coco"]


def test_images_are_tested_at_the_published_scale(recipe: Recipe) -> None:
    pipeline = plain(recipe.name)["test_dataloader"]["dataset"]["pipeline"]
    found = [step for step in pipeline if step["type"] not in LOADING]
    scale = COCO_SCALE["scale"] if task(recipe) == "coco" else (2048, 512)
    assert found == [{**COCO_SCALE, "scale": scale}]


def test_the_data_are_the_published_ones(recipe: Recipe) -> None:
    cfg = plain(recipe.name)
    kind = {"coco": "CocoDataset", "ade": "ADE20KDataset"}[task(recipe)]
    for split in ("train", "val", "test"):
        dataset = cfg[f"{split}_dataloader"]["dataset"]
        assert dataset["type"] == kind
        for step in dataset["pipeline"]:
            if kind == "ADE20KDataset" and step["type"] == "LoadAnnotations":
                assert step["reduce_zero_label"] is True
    preprocessor = cfg["model"]["data_preprocessor"]
    assert {key: preprocessor[key] for key in IMAGENET} == IMAGENET


def test_the_scores_are_of_the_published_kinds(recipe: Recipe) -> None:
    evaluator = plain(recipe.name)["test_evaluator"]
    if task(recipe) == "ade":
        assert evaluator["iou_metrics"] == ["mIoU"]
    else:
        metric = evaluator["metric"]  # a name or a list of names
        kinds = ["bbox", "segm"][: len(recipe.scores)]
        assert ([metric] if isinstance(metric, str) else metric) == kinds


def test_the_heads_are_the_published_ones(recipe: Recipe) -> None:
    model = plain(recipe.name)["model"]
    wanted = HEADS[recipe.model[0]]
    assert {key: find(model, key) for key in wanted} == wanted


def test_a_recipe_says_its_command_and_its_published_scores(recipe: Recipe) -> None:
    text = (ROOT / f"{recipe.name}.py").read_text()
    assert f"bash tools/dist_train.sh configs/{recipe.name}.py 8\n" in text
    kinds = ("box AP", "mask AP") if task(recipe) == "coco" else ("mIoU", "mAcc")
    scores = ", ".join(f"{score} {kind}" for score, kind in zip(recipe.scores, kinds, strict=False))
    assert f"# Expected: {scores} (reported by the authors" in text
    assert f"# Cost: {recipe.parameters} M parameters, " in text


@pytest.mark.parametrize("name", SHORT)
def test_a_short_door_leads_to_its_recipe(name: str) -> None:
    assert plain(name) == plain(SHORT[name][0])


@pytest.mark.parametrize("name", [n for n in RECIPES if RECIPES[n].model[1:3] == ("swin", "t")])
def test_what_is_not_decayed_are_parameters(name: str) -> None:
    from agent_attention import AgentSwinTransformer

    names = [f"backbone.{name}" for name, _ in AgentSwinTransformer("tiny").named_parameters()]
    keys = load(name).optim_wrapper.paramwise_cfg.custom_keys
    without = {key for key in keys if not any(key in each for each in names)}
    assert without == {"absolute_pos_embed"}  # Swin's own, which Agent-Swin does without
