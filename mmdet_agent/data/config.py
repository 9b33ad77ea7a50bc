"""A detection config's data pointed at a user's."""

from pathlib import Path
from typing import Any

from mmdet.datasets import Objects365V1Dataset
from mmengine.config import Config

from mmdet_agent.data.panoptic import panoptic_classes, point_at_segments
from mmdet_agent.data.problems import lists_classes
from mmdet_agent.data.read import annotation_path, read_categories
from mmengine_agent.config_walk import walk
from mmengine_agent.data.user_data import DataFlags, class_names, datasets, type_of
from mmengine_agent.errors import UserError


def point_at(cfg: Config, flags: DataFlags) -> dict[str, Any] | None:
    """Point loaders and evaluators at a user's COCO-like data; the class names, if others.

    Raises:
        UserError: if the annotations cannot be read, or flags are of label maps.
    """
    if flags.palette or flags.labels_from is not None:
        raise UserError(
            "--labels-from and --palette are of label maps; the config is of a detector"
        )
    for split, dataset in datasets(cfg):
        train, before = split == "train", dataset.get("data_root") or ""
        listed = annotation_path(dataset)
        dataset.data_root = flags.root or before
        annotations = flags.train_ann if train else flags.val_ann
        dataset.ann_file = annotations or dataset.get("ann_file") or ""
        images = flags.train_images if train else flags.val_images
        if images is not None:
            dataset.data_prefix = {**dataset.get("data_prefix", {}), "img": images}
        for _, evaluator in walk(cfg.get(f"{split}_evaluator")):
            for key in ("ann_file", "seg_prefix"):  # PNGs of panoptic COCO, Cityscapes
                place = evaluator.get(key) or ""
                own = key == "ann_file" and (annotations or Path(place) == listed)
                if before and place.startswith(before) and not own:
                    inner = place.removeprefix(before).lstrip("/")
                    evaluator[key] = str(Path(dataset.data_root, inner))
                elif key == "ann_file" and key in evaluator:
                    evaluator[key] = str(annotation_path(dataset))
    point_at_segments(cfg, flags)
    if panoptic := panoptic_classes(cfg):
        return panoptic
    known = class_names(next(datasets(cfg))[1], "mmdet")
    found = _annotated_classes(cfg, flags.classes) or flags.classes or known
    # without any file require_data says what is missing
    return None if found == known else {"classes": found}


def _annotated_classes(cfg: Config, chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    """The annotated class names, or those ``chosen`` among them, in the order of mmdet's labels.

    mmdet numbers labels by the order of the categories in each file, whatever order it is given, so
    the files of all splits must have the same. Empty without any file that lists them.
    """
    orders: dict[Path, tuple[str, ...]] = {}
    for dataset in (each for _, each in datasets(cfg) if lists_classes(each)):
        path = annotation_path(dataset)
        if path.is_file():
            numbers = read_categories(path)
            # mmdet sorts those of Objects365 v1, whose files differ in their order
            is_sorted = type_of(dataset, "mmdet") is Objects365V1Dataset
            names = tuple(sorted(numbers, key=lambda name: numbers[name]) if is_sorted else numbers)
            absent = [name for name in chosen or () if name not in names]
            if absent:
                raise UserError(
                    f"--classes: {path} has no {', '.join(absent)}; it has {', '.join(names)}"
                )
            orders[path] = tuple(name for name in names if chosen is None or name in chosen)
    if len(set(orders.values())) > 1:
        text = "; ".join(f"{path}: {', '.join(names)}" for path, names in orders.items())
        raise UserError(f"the annotation files number their classes differently ({text})")
    return next(iter(orders.values()), ())
