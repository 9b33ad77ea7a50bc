"""Points a detection config at a user's COCO-like data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_agent.data.read import read_categories
from mmengine_agent.data.user_data import DataFlags, class_names, datasets
from mmengine_agent.errors import UserError


def point_at(cfg: Config, flags: DataFlags) -> Sequence[str] | None:
    """Point loaders and evaluators at a user's data; the class names, if they are other ones."""
    for split, dataset in datasets(cfg):
        _move_coco(dataset, flags, split)
    _move_evaluators(cfg)
    found = _coco_classes(cfg, flags.classes)
    return None if found == _known_classes(cfg) else found


def _move_coco(dataset: Any, flags: DataFlags, split: str) -> None:
    dataset.data_root = flags.root or dataset.get("data_root") or ""
    train = split == "train"
    dataset.ann_file = (flags.train_ann if train else flags.val_ann) or dataset.ann_file
    images = flags.train_images if train else flags.val_images
    if images is not None:
        dataset.data_prefix = {"img": images}


def _move_evaluators(cfg: Config) -> None:
    for split, dataset in datasets(cfg):
        evaluators = cfg.get(f"{split}_evaluator") or []
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            if "ann_file" in evaluator:
                evaluator.ann_file = str(Path(dataset.data_root, dataset.ann_file))


def _coco_classes(cfg: Config, chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    """The annotated class names, or those ``chosen`` among them, in the order of mmdet's labels.

    mmdet numbers labels by the order of the categories in each file, whatever order it is given, so
    the files of all splits must have the same.
    """
    orders: dict[Path, tuple[str, ...]] = {}
    for _, dataset in datasets(cfg):
        path = Path(dataset.data_root, dataset.ann_file)
        if path not in orders and path.exists():
            names = tuple(read_categories(path))
            absent = [name for name in chosen or () if name not in names]
            if absent:
                raise UserError(
                    f"--classes: {path} has no {', '.join(absent)}; it has {', '.join(names)}"
                )
            orders[path] = tuple(name for name in names if chosen is None or name in chosen)
    if len(set(orders.values())) > 1:
        orders_text = "; ".join(f"{path}: {', '.join(names)}" for path, names in orders.items())
        raise UserError(f"the annotation files number their classes differently ({orders_text})")
    # without any file require_data says what is missing
    return next(iter(orders.values()), chosen or _known_classes(cfg))


def _known_classes(cfg: Config) -> tuple[str, ...]:
    return class_names(next(datasets(cfg))[1], "mmdet")
