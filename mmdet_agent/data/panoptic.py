"""Panoptic data sets: where their files lie, and their classes, things first."""

from pathlib import Path
from typing import Any

from mmdet.datasets import CocoPanopticDataset
from mmengine.config import Config

from mmdet_agent.data.read import annotation_path, forget_files, read_categories, read_coco
from mmengine_agent.config_walk import type_name
from mmengine_agent.data.user_data import DataFlags, class_names, datasets, type_of
from mmengine_agent.errors import UserError


def is_panoptic(dataset: Any) -> bool:
    """Whether a data set's config reads panoptic COCO."""
    kind = type_of(dataset, "mmdet")
    return isinstance(kind, type) and issubclass(kind, CocoPanopticDataset)


def point_at_segments(cfg: Config, flags: DataFlags) -> None:
    """Follow the annotation files of the flags with PNGs and scores, in place.

    COCO's PNGs lie in a folder with the name of their JSON. Scores of boxes and masks need a file
    of instances, which the flags do not name.
    """
    for split, dataset in datasets(cfg):
        annotations = flags.train_ann if split == "train" else flags.val_ann
        if annotations is None or not is_panoptic(dataset):
            continue
        folder = annotations.removesuffix(".json")
        dataset.data_prefix = {**dataset.get("data_prefix", {}), "seg": folder}
        evaluators = cfg.get(f"{split}_evaluator") or []
        kept = [
            each
            for each in (evaluators if isinstance(evaluators, list) else [evaluators])
            if "Panoptic" in type_name(each)
        ]
        for each in kept:
            each.seg_prefix = str(Path(dataset.get("data_root") or "", folder))
        if kept:
            cfg[f"{split}_evaluator"] = kept


def panoptic_classes(cfg: Config) -> dict[str, Any] | None:
    """The classes of panoptic COCO sets as their files list them; None if they are the config's.

    Raises:
        UserError: if a file lists stuff before things, which mmdet's heads cannot number.
    """
    orders: dict[tuple[str, ...], dict[str, Any]] = {}
    for _, dataset in datasets(cfg):
        path = annotation_path(dataset)
        if not is_panoptic(dataset) or not path.is_file():
            continue
        names = tuple(read_categories(path))
        content, _ = read_coco(path)
        kinds = [bool(each.get("isthing", 1)) for each in (content or {}).get("categories", ())]
        if kinds != sorted(kinds, reverse=True):
            raise UserError(
                f"{path} lists stuff before things: put the categories with isthing 1 first, "
                "as mmdet's heads number them"
            )
        things = sum(kinds)
        orders[names] = {"thing_classes": names[:things], "stuff_classes": names[things:]}
    forget_files()
    if len(orders) > 1:
        raise UserError("the panoptic annotation files list different classes")
    for names, parts in orders.items():
        if names and names != class_names(next(datasets(cfg))[1], "mmdet"):
            return {"classes": names, **parts}
    return None
