"""What is wrong with a detection config's data, as far as the files are there.

Can mmdet load it, and is it what the classes say?
"""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.config import Config

from mmdet_agent.data.coco import entry_faults, file_faults
from mmdet_agent.data.panoptic import is_panoptic
from mmdet_agent.data.read import annotation_path, forget_files, read_coco
from mmdet_agent.data.segments import segment_problems
from mmengine_agent.config_walk import type_name, walk
from mmengine_agent.data.faults import KINDS, STOPS, Fault
from mmengine_agent.data.user_data import class_names, datasets, type_of
from mmengine_agent.errors import Problem

_PACKAGES = {"CityScapesMetric": "cityscapesscripts", "LVISMetric": "lvis"}  # of scores
_LOOKED = 100  # images whose files are looked for
_SHOWN = 3  # faults of a file
_CHECK = "   `python tools/prepare_data.py check` lists all; with --fix it writes a cleaned copy"


def data_problems(cfg: Config, splits: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with the sets of some splits, as far as their files are there."""
    for split, dataset in datasets(cfg):
        if split in splits and (reads_coco(dataset) or is_panoptic(dataset)):
            yield from _set_problems(dataset, split)
    forget_files()
    for split in splits:
        for place, evaluator in walk(cfg.get(f"{split}_evaluator"), f"{split}_evaluator"):
            path, needed = evaluator.get("ann_file"), _PACKAGES.get(type_name(evaluator), "os")
            if find_spec(needed) is None:
                yield Problem(f"{place}: {evaluator.type} needs {needed}: pip install {needed}")
            if path and not Path(path).exists():
                yield Problem(f"{place}.ann_file: there is no {path} (from {Path.cwd()})")


def reads_coco(dataset: Any) -> bool:
    """Whether a data set reads its annotations as mmdet's ``CocoDataset`` does.

    Those of Pascal VOC, LVIS, panoptic COCO and others have layouts of their own.
    """
    kind, own = type_of(dataset, "mmdet"), ("load_data_list", "parse_data_info", "COCOAPI")
    return all(getattr(kind, name, None) is getattr(CocoDataset, name) for name in own)


def lists_classes(dataset: Any) -> bool:
    """Whether a data set takes its classes from the categories of its file, as COCO's does.

    So do LVIS, Objects365 and others that read images or masks in ways of their own.
    """
    kind = type_of(dataset, "mmdet")
    listed = isinstance(kind, type) and issubclass(kind, CocoDataset) and not is_panoptic(dataset)
    return listed and (reads_coco(dataset) or read_coco(annotation_path(dataset))[0] is not None)


def stopping_faults(faults: Sequence[Fault], masks: bool, evaluated: bool) -> list[Fault]:
    """Of the faults of a file, those that stop a training or an evaluation.

    Args:
        faults: of ``file_faults``.
        masks: whether the model learns from masks.
        evaluated: whether pycocotools evaluates with the file, which asks for iscrowd.
    """
    kinds = {*STOPS, *["mask-missing"] * masks, *["iscrowd-missing"] * evaluated}
    return [fault for fault in faults if fault.kind in kinds]


def _set_problems(dataset: Any, split: str) -> Iterator[Problem]:
    path, panoptic = annotation_path(dataset), is_panoptic(dataset)
    if not path.is_file():
        return
    content, faults = read_coco(path)
    if content is not None and not faults:
        masks = any(step.get("with_mask") for step in dataset.get("pipeline") or [])
        lists = (entry_faults(part, content[part]) for part in ("images", "categories"))
        every = [*(chain(*lists) if panoptic else file_faults(content))]
        faults = stopping_faults(every, masks and split == "train", split != "train")
    if content is None or faults:
        yield Problem("\n".join([*_described(path, faults), *[_CHECK] * (not panoptic)]))
        return
    yield from _name_problems(path, content, class_names(dataset, "mmdet"))
    yield from _file_problems(path, content, dataset)
    if panoptic:
        yield from segment_problems(content, dataset, split != "train")
        return
    unlisted = [fault for fault in every if fault.kind == "annotation-category"]
    if unlisted:  # mmdet leaves them out without a word
        yield Problem(
            f"{path}: {len(unlisted)} annotations, such as {unlisted[0].place}, are of a category "
            "that the file does not list: their objects are trained on as background",
            fatal=False,
        )
    if split == "train" and not _has_images(content, dataset):
        yield Problem(
            f"{path}: no image is left to train on (filter_cfg {dataset.get('filter_cfg')})"
        )


def _described(path: Path, faults: list[Fault]) -> list[str]:
    """What is wrong with a file, with the first faults of it, in lines."""
    lines = [f"   {each.place}: {each.message} ({KINDS[each.kind]})" for each in faults[:_SHOWN]]
    return [f"{path} cannot be used, faults: {len(faults)}", *lines]


def _name_problems(
    path: Path, content: dict[str, Any], names: tuple[str, ...]
) -> Iterator[Problem]:
    """mmdet finds categories by name, and numbers them in the file's order."""
    listed = [entry["name"] for entry in content["categories"]]
    absent = [name for name in names if name not in listed]
    known = [name for name in listed if name in names]
    if absent:
        yield Problem(
            f"{path} has no {', '.join(absent[:8])}{' ...' if absent[8:] else ''}, which the "
            f"config's classes name; it has {', '.join(listed[:20])}. With --train-ann or "
            "--val-ann the names are read from the files"
        )
    elif known != list(names):
        yield Problem(
            f"{path} lists its categories in another order ({', '.join(known[:8])}) than the "
            f"config's classes ({', '.join(names[:8])}): mmdet numbers them in the file's order"
        )


def _file_problems(path: Path, content: dict[str, Any], dataset: Any) -> Iterator[Problem]:
    folder = Path(dataset.get("data_root") or "", dataset.get("data_prefix", {}).get("img") or "")
    if not folder.is_dir():
        return  # require_data says it
    names = [each["file_name"] for each in content["images"]]
    looked = names[:: max(1, len(names) // _LOOKED)]
    absent = [name for name in looked if not (folder / name).exists()]
    if len(absent) == len(looked):
        yield Problem(
            f"{folder} has none of the images of {path}, such as {absent[0]}: see --train-images"
        )
    elif absent:
        yield Problem(
            f"{folder} lacks {len(absent)} of the {len(looked)} images that were looked "
            f"for, such as {absent[0]}",
            fatal=False,
        )


def _has_images(content: dict[str, Any], dataset: Any) -> bool:
    """Whether mmdet's filter leaves an image."""
    settings, names = dataset.get("filter_cfg") or {}, class_names(dataset, "mmdet")
    ids = {entry["id"] for entry in content["categories"] if entry["name"] in names}
    notes = content["annotations"]
    annotated = {note["image_id"] for note in notes if note["category_id"] in ids}
    return any(
        (entry["id"] in annotated or not settings.get("filter_empty_gt"))
        and min(entry["width"], entry["height"]) >= settings.get("min_size", 0)
        for entry in content["images"]
    )
