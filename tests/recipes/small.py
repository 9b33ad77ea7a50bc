"""A recipe as published, but shorter and with smaller images; and weights to begin with.

What is changed follows from two rules, ``short`` and ``fewer``; the generated config inherits from
the recipe and names nothing else. So optimizer, schedule, hooks, samplers, workers, batch size,
drop path and ``init_cfg`` are the recipe's own.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from helpers import SMALL
from mmengine.config import Config

from agent_attention.backbones import BACKBONES
from mmengine_agent.config_changes import config_changes

CONFIGS = Path(__file__).parents[2] / "configs"
# a recipe of each kind, for what is not run with all
KINDS = {
    "Mask R-CNN": "mask-rcnn_agent-swin-t_fpn_1x_coco",
    "RetinaNet": "retinanet_agent-pvt-t_fpn_1x_coco",
    "Cascade Mask R-CNN": "cascade-mask-rcnn_agent-swin-t_fpn_1x_coco",
    "Semantic FPN": "fpn_agent-pvt-t_8xb2-40k_ade20k-512x512",
    "UPerNet": "upernet_agent-swin-t_8xb2-160k_ade20k-512x512",
    "ViTDet": "mask-rcnn_agent-deit-s_sfp_lsj-100e_coco",
    "UPerNet on ViT": "upernet_agent-deit-s_8xb2-160k_ade20k-512x512",
    "UPerNet on CSwin": "upernet_agent-cswin-t_8xb2-160k_ade20k-512x512",
    "RetinaNet on FLatten": "retinanet_flatten-pvtv2-b0_fpn_1x_coco",
}
_SIZES = ("scale", "scales", "size", "crop_size")  # of images, in pipelines
_COUNTS = ("num", "nms_pre", "max_per_img")  # of anchors and boxes an image, in a detector
_WIDTHS = (
    *("in_channels", "out_channels", "channels", "feat_channels"),
    *("conv_out_channels", "fc_out_channels"),
)
_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_FAMILIES = {family.__name__: family for family in BACKBONES.values()}
_SWIN = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
_CSWIN = {**_SWIN, "num_heads": (2, 2, 4, 4)}
_NARROW: dict[str, dict[str, Any]] = {
    "AgentPVT": SMALL,
    "AgentSwinTransformer": _SWIN,
    "AgentCSwin": _CSWIN,
    "AgentViT": {"embed_dim": 16, "depth": 12, "num_heads": 2, "base_grid": 3},
    "FLattenPVT": SMALL,
    "FLattenPVTv2": SMALL,
    "FLattenSwin": _SWIN,
    "FLattenCSwin": _CSWIN,
}


@dataclass(frozen=True)
class Cut:
    """How small: so many epochs instead of 12 or 36, sides and boxes divided by so much.

    Trainings by iterations take two for each of those epochs, with a validation in the middle.
    """

    epochs: int = 3
    sides: int = 8
    boxes: int = 16
    narrow: bool = False  # few channels, and few blocks in the backbone, too


def recipes() -> dict[str, Path]:
    """All published recipes and the short doors to them, by name."""
    paths = [*CONFIGS.glob("*.py"), *CONFIGS.glob("*/*.py")]
    found = (path for path in sorted(paths) if path.parent.name not in ("_base_", "demo", "heads"))
    return {path.stem: path for path in found}


@functools.cache
def read(path: Path) -> Config:
    """A config; not to be changed. mmdet's bases take most of a second."""
    return Config.fromfile(path, import_custom_modules=False)


def write_config(recipe: Path, out: Path, cut: Cut) -> Path:
    """Write the small config of a recipe."""
    old = read(recipe).to_dict()
    new = {**old, **short(old, cut.epochs)}
    new |= {key: fewer(old[key], _SIZES, cut.sides) for key in _LOADERS}
    model = narrowed(old["model"]) if cut.narrow else dict(old["model"])
    model["data_preprocessor"] = fewer(model["data_preprocessor"], _SIZES, cut.sides)
    model |= {key: fewer(model[key], _COUNTS, cut.boxes) for key in ("train_cfg", "test_cfg")}
    for part in (model["test_cfg"], model["test_cfg"].get("rcnn", {})):
        if "score_thr" in part:
            part["score_thr"] = 0.0  # a model that has hardly learnt is sure of nothing
    new |= {"model": model, "randomness": {"seed": 1}}  # runs of two seeds cannot be compared
    lines = [f"{key} = {value!r}\n" for key, value in config_changes(old, new).items()]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f"_base_ = {str(recipe)!r}\n" + "".join(lines))
    return out


def short(cfg: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """The settings of a config that count epochs or iterations, so that it ends after a few.

    Epochs are scaled, and milestones too. Iterations become few: in all, between validations, and
    before the schedule proper. The log has every iteration.
    """
    loop, hooks = dict(cfg["train_cfg"]), dict(cfg["default_hooks"])
    hooks["logger"] = {**hooks["logger"], "interval": 1}
    whole = loop.get("max_epochs") or loop["max_iters"]

    def scaled(count: int, length: int = epochs) -> int:
        return max(1, math.ceil(count * length / whole - 0.5))

    def cut(count: int) -> int:
        return 2 * epochs if count == whole else min(count, epochs - 1)

    schedule = []
    for part in cfg["param_scheduler"]:
        count = scaled if part["by_epoch"] else cut
        part = {**part, "begin": count(part["begin"]) if part["begin"] else 0}
        part["end"] = count(part["end"])
        if "milestones" in part:
            end, old = part["end"] - (not part["by_epoch"]), part["milestones"]
            part["milestones"] = [min(scaled(each, part["end"]), end) for each in old]
        schedule.append(part)
    if "max_epochs" in loop:
        loop["max_epochs"] = epochs
    else:
        loop |= {"max_iters": 2 * epochs, "val_interval": epochs}
        hooks["checkpoint"] = {**hooks["checkpoint"], "interval": epochs}
    return {"train_cfg": loop, "default_hooks": hooks, "param_scheduler": schedule}


def fewer(node: Any, names: tuple[str, ...], divisor: int) -> Any:
    """Settings with all numbers of some names divided, however deep they are."""
    if isinstance(node, Mapping):
        return {
            key: _divided(value, divisor) if key in names else fewer(value, names, divisor)
            for key, value in node.items()
        }
    if isinstance(node, list | tuple):
        return type(node)(fewer(each, names, divisor) for each in node)
    return node


def narrowed(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model with a tiny backbone, and a neck and heads of an eighth of the channels."""
    backbone = model["backbone"]
    arch = dict(_NARROW[backbone["type"]])
    if "depth" in arch:  # a plain backbone has one width
        dims = [arch["embed_dim"]] * 4
    else:
        dims = arch.get("embed_dims") or [arch["embed_dim"] * 2**stage for stage in range(4)]
    new = fewer(model, _WIDTHS, 8)
    new["backbone"] = {**backbone, "arch": arch}
    if "neck" in model:
        one = isinstance(model["neck"]["in_channels"], int)
        new["neck"]["in_channels"] = dims[-1] if one else list(dims)
    else:
        new["decode_head"]["in_channels"] = list(dims)
        new["auxiliary_head"]["in_channels"] = dims[model["auxiliary_head"]["in_index"]]
    return new


def write_weights(cfg: Config, folder: Path) -> Path:
    """Write the weights that a config begins with, where it says, from ``folder``.

    As in the authors' files of ImageNet: a classifier's, with its head, under 'model'.
    """
    backbone = cfg.model.backbone.to_dict()
    out = folder / backbone["init_cfg"]["checkpoint"]
    if out.exists():
        return out
    torch.manual_seed(len(out.name))
    model = _FAMILIES[backbone["type"]](backbone["arch"])
    state = model.state_dict()
    # a classifier has no norms of maps
    weights = {key: value for key, value in state.items() if not model.is_optional_key(key)}
    width = weights[next(key for key in reversed(weights) if key.endswith("fc2.weight"))].shape[0]
    head = {"head.weight": torch.randn(1000, width), "head.bias": torch.randn(1000)}
    norm = {f"norm.{key}": torch.ones(width) for key in ("weight", "bias")}
    out.parent.mkdir(parents=True, exist_ok=True)
    extra = norm if all(map(model.is_unused_key, norm)) else {}
    torch.save({"model": {**weights, **extra, **head}, "epoch": 299}, out)
    return out


def data_flags(cfg: Config, data: Path) -> list[str]:
    """The flags that point a training at a generated data set, as README says."""
    if cfg.default_scope == "mmdet":
        annotations = "annotations/instances_{}2017.json"
        names = [annotations.format("train"), "train2017", annotations.format("val"), "val2017"]
        flags = ["--data-root", str(data / "coco")]
    else:
        names = ["annotations/training", "images/training", "annotations/validation"]
        names.append("images/validation")
        flags = ["--data-root", str(data / "ade"), "--classes", str(data / "ade/classes.txt")]
    places = ("--train-ann", "--train-images", "--val-ann", "--val-images")
    return [*flags, *(each for pair in zip(places, names, strict=True) for each in pair)]


def _divided(numbers: Any, divisor: int) -> Any:
    if isinstance(numbers, list | tuple):
        return type(numbers)(_divided(each, divisor) for each in numbers)
    return max(1, round(numbers / divisor)) if numbers > 0 else numbers
