"""Configs of this project at a size that trains in seconds: two of the demo, two published recipes.

Of a recipe only the data, the lengths (all by one factor), the sizes in pixels, the widths of the
networks and the numbers of boxes are small. Its schedulers, optimizer, samplers, hooks, worker
processes, batch size, drop path and augmentations are those that are published.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import SMALL, SMALL_GRIDS
from mmengine.config import Config

CONFIGS = Path(__file__).parents[1] / "configs"
CLASSES = ("ellipse", "rectangle", "triangle", "star", "cross")
EPOCH = 4  # iterations: eight images in batches of two
PIXELS = 8  # a side of a recipe's image, crop or resize is divided by it
WARM_UP = 6  # iterations at least: the same factor would leave less than one


# ---- where the data is


def _point_at_coco(cfg: Config, data: Path) -> None:
    for part, loader in (("train", cfg.train_dataloader), ("val", cfg.val_dataloader)):
        place = {"data_root": str(data), "ann_file": f"{part}.json", "data_prefix": {"img": part}}
        loader.dataset.update({**place, "metainfo": {"classes": CLASSES}})
    cfg.val_evaluator.ann_file = str(data / "val.json")


def _point_at_ade(cfg: Config, data: Path) -> None:
    for part, loader in (("train", cfg.train_dataloader), ("val", cfg.val_dataloader)):
        prefix = {"img_path": part, "seg_map_path": f"{part}_labels"}
        loader.dataset.update({"data_root": str(data), "data_prefix": prefix})


# ---- the tasks


@dataclass(frozen=True)
class Task:
    """A config and what is changed in it.

    Attributes:
        config: file in configs/.
        package: the adapter that registers its models.
        point_at: writes into a config where the data lies.
        length: iterations of the run.
        by_epoch: whether lengths are counted in epochs of ``EPOCH`` iterations.
        stops: iterations after which stopping is tried.
        workers: numbers of data loaders' workers that are tried; None leaves the config's.
        published: iterations of the published run, if the config is a recipe: its lengths are
            scaled by ``length / published``.
        augment: steps between loading and packing; None leaves the config's pipeline.
        settings: further changes, by their dotted names.
        hooks: custom hooks.
        tried: settings for the trial of stopping and going on.
    """

    config: str
    package: str
    point_at: Callable[[Config, Path], None]
    length: int
    by_epoch: bool
    stops: tuple[int, ...]
    workers: tuple[int, ...]
    published: int | None = None
    augment: list[dict[str, Any]] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    hooks: tuple[dict[str, Any], ...] = ()
    tried: dict[str, Any] = field(default_factory=dict)


_GROUP_NORM = {"type": "GN", "num_groups": 4}
_NARROW_MASK_RCNN = {
    "model.neck.out_channels": 16,
    "model.rpn_head.in_channels": 16,
    "model.rpn_head.feat_channels": 16,
    "model.roi_head.bbox_roi_extractor.out_channels": 16,
    "model.roi_head.bbox_head.in_channels": 16,
    "model.roi_head.bbox_head.fc_out_channels": 16,
    "model.roi_head.mask_roi_extractor.out_channels": 16,
    "model.roi_head.mask_head.in_channels": 16,
    "model.roi_head.mask_head.conv_out_channels": 16,
}
# agent attention in three stages and shifted windows in the last, as in Agent-Swin-T
_NARROW_SWIN = {
    "model.backbone.arch": {
        "_delete_": True,
        "embed_dim": 8,
        "depths": (1, 1, 2, 2),
        "num_heads": (1, 2, 4, 8),
    },
    "model.backbone.agent_shapes": SMALL_GRIDS,
    "model.backbone.init_cfg": None,
}
_DEMO = {
    "model.backbone.agent_shapes": SMALL_GRIDS,
    "model.backbone.arch": {"_delete_": True, **SMALL},
    "model.backbone.drop_path_rate": 0.3,
    "model.neck.in_channels": list(SMALL["embed_dims"]),
    "model.neck.out_channels": 16,
    "train_dataloader.batch_size": 2,
    "optim_wrapper.optimizer.lr": 0.01,
}
_AVERAGES = ({"type": "EMAHook", "momentum": 0.1},)
_ACCUMULATED = {"optim_wrapper.accumulative_counts": 2}

TASKS = {
    "detection": Task(
        config="demo/agent_pvt_maskrcnn_demo.py",
        package="mmdet_agent",
        point_at=_point_at_coco,
        length=8,
        by_epoch=True,
        stops=tuple(range(1, 8)),
        workers=(0, 2),
        augment=[
            {
                "type": "RandomChoiceResize",
                "scales": [(64, 64), (80, 80), (96, 96)],
                "keep_ratio": True,
            },
            {"type": "RandomFlip", "prob": 0.5},
        ],
        settings={
            **_DEMO,
            **_NARROW_MASK_RCNN,
            "model.neck.norm_cfg": _GROUP_NORM,
            "model.roi_head.mask_head.norm_cfg": _GROUP_NORM,
            "model.test_cfg.rpn.max_per_img": 20,
            "model.train_cfg.rpn_proposal.max_per_img": 20,
            "train_dataloader.batch_sampler": {
                "_delete_": True,
                "type": "AspectRatioBatchSampler",
            },
            "train_cfg.val_interval": 1,
            "param_scheduler": [
                {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "end": 20}
            ],
        },
        hooks=_AVERAGES,
        tried=_ACCUMULATED,
    ),
    "segmentation": Task(
        config="demo/agent_pvt_semantic_fpn_demo.py",
        package="mmseg_agent",
        point_at=_point_at_ade,
        length=8,
        by_epoch=False,
        stops=tuple(range(1, 8)),
        workers=(0, 2),
        augment=[
            {
                "type": "RandomResize",
                "scale": (96, 48),
                "ratio_range": (0.7, 2.0),
                "keep_ratio": True,
            },
            {"type": "RandomCrop", "crop_size": (32, 32), "cat_max_ratio": 0.9},
            {"type": "RandomFlip", "prob": 0.5},
            {"type": "PhotoMetricDistortion"},
        ],
        settings={
            **_DEMO,
            "model.data_preprocessor.size": (32, 32),
            "model.decode_head.in_channels": [16] * 4,
            "model.decode_head.channels": 16,
            "model.decode_head.dropout_ratio": 0.2,
            "train_cfg.val_interval": 4,
            "default_hooks.checkpoint.interval": 4,
            "param_scheduler": [{"type": "PolyLR", "power": 0.9, "end": 8, "by_epoch": False}],
        },
        hooks=_AVERAGES,
        tried=_ACCUMULATED,
    ),
    "mask-rcnn-recipe": Task(
        config="agent_swin/mask-rcnn_agent-swin-t_fpn_1x_coco.py",
        package="mmdet_agent",
        point_at=_point_at_coco,
        length=12 * EPOCH,
        by_epoch=True,
        # the warm-up ends after 6 iterations, the milestones are after 32 and 44
        stops=(5, 6, 7, 18, 31, 32, 33, 44),
        workers=(2,),
        published=12 * 7330,  # 117,266 images with objects in batches of 16
        settings={
            **_NARROW_SWIN,
            **_NARROW_MASK_RCNN,
            "model.neck.in_channels": [8, 16, 32, 64],
            "model.train_cfg.rpn_proposal.max_per_img": 100,
            "model.train_cfg.rcnn.sampler.num": 64,
            "model.test_cfg.rpn.max_per_img": 100,
            "model.test_cfg.rcnn.max_per_img": 20,
            "model.roi_head.bbox_head.num_classes": len(CLASSES),
            "model.roi_head.mask_head.num_classes": len(CLASSES),
        },
    ),
    "upernet-recipe": Task(
        config="agent_swin/upernet_agent-swin-t_8xb2-160k_ade20k-512x512.py",
        package="mmseg_agent",
        point_at=_point_at_ade,
        length=20,
        by_epoch=False,
        # the warm-up ends, and the decay begins, after 6 iterations
        stops=(5, 6, 7, 13, 18),
        workers=(2,),
        published=160000,
        settings={
            **_NARROW_SWIN,
            "model.decode_head.in_channels": [8, 16, 32, 64],
            "model.decode_head.channels": 16,
            "model.auxiliary_head.in_channels": 32,
            "model.auxiliary_head.channels": 16,
        },
    ),
}
DEMOS = tuple(name for name, task in TASKS.items() if task.published is None)
RECIPES = tuple(name for name, task in TASKS.items() if task.published is not None)


# ---- making a config small


def last_checkpoint(name: str, length: int | None = None) -> str:
    """Name of the last checkpoint of a task's run of ``length`` iterations; None: as configured."""
    length = length or TASKS[name].length
    return f"epoch_{length // EPOCH}.pth" if TASKS[name].by_epoch else f"iter_{length}.pth"


def small_config(name: str, data: Path, length: int | None = None) -> Config:
    """The config of a task: trained on ``make_data``'s images for ``length`` iterations.

    Args:
        name: of ``TASKS``.
        data: where the images are.
        length: None takes the task's own. Schedulers and intervals of a recipe follow it.
    """
    task = TASKS[name]
    length = length or task.length
    cfg = _read(CONFIGS / task.config)
    task.point_at(cfg, data)
    if task.augment is not None:
        load, notes, *_, pack = cfg.train_dataloader.dataset.pipeline
        cfg.train_dataloader.dataset.pipeline = [load, notes, *task.augment, pack]
    if task.published is not None:
        _shrink(cfg)
        _shorten(cfg, length / task.published, length / EPOCH)
    cfg.merge_from_dict(deepcopy(task.settings))  # "_delete_" is taken out of what is given
    if task.by_epoch:
        cfg.train_cfg.max_epochs = length // EPOCH
    else:
        cfg.train_cfg.max_iters = length
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), *task.hooks]
    cfg.default_hooks.logger.interval = 1
    cfg.pop("auto_scale_lr", None)
    return cfg


def _read(path: Path) -> Config:
    """A config whose text, which each checkpoint holds, is not formatted: that takes seconds."""
    return Config(Config.fromfile(path).to_dict(), format_python_code=False)


def _shrink(cfg: Config) -> None:
    """Divide all sizes in pixels, in place."""
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.pipeline = _smaller(loader.dataset.pipeline)
    if "size" in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = _divided(cfg.model.data_preprocessor.size)


def _smaller(node: Any) -> Any:
    """Steps of a pipeline, or lists of them, with their sizes in pixels divided."""
    if isinstance(node, list):
        return [_smaller(each) for each in node]
    if not isinstance(node, dict):
        return node
    sizes = ("scale", "scales", "crop_size")
    return {key: _divided(part) if key in sizes else _smaller(part) for key, part in node.items()}


def _divided(size: Any) -> Any:
    return size // PIXELS if isinstance(size, int) else type(size)(map(_divided, size))


def _shorten(cfg: Config, factor: float, epochs: float) -> None:
    """Scale schedulers and intervals of a recipe, in place.

    Args:
        cfg: a recipe.
        factor: for what is counted in iterations.
        epochs: how many the small run has, to which what is counted in epochs is scaled.
    """
    loop = cfg.train_cfg
    by_epoch = "max_epochs" in loop
    epoch_factor = epochs / loop.max_epochs if by_epoch else factor

    def scaled(value: int, in_epochs: bool, least: int) -> int:
        return max(least, round(value * (epoch_factor if in_epochs else factor))) if value else 0

    for scheduler in cfg.param_scheduler:
        unit = scheduler.get("by_epoch", True)
        least = 1 if unit else WARM_UP
        for key in ("begin", "end"):
            scheduler[key] = scaled(scheduler[key], unit, least)
        if "milestones" in scheduler:
            scheduler.milestones = [scaled(each, unit, least) for each in scheduler.milestones]
    loop.val_interval = scaled(loop.val_interval, by_epoch, 1)
    saving = cfg.default_hooks.checkpoint
    saving.interval = scaled(saving.interval, saving.get("by_epoch", True), 1)
