"""A segmentation config's data: has each image its label map?"""

from collections import Counter
from collections.abc import Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import list_dir_or_file
from mmengine.registry import DATASETS

from mmengine_agent.data.user_data import datasets
from mmengine_agent.errors import Problem


def data_problems(cfg: Config, splits: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with the sets of some splits, as far as their folders are there."""
    for split, dataset in datasets(cfg):
        if split in splits:
            yield from _ade_problems(dataset, split)


def _ade_problems(dataset: Any, split: str) -> Iterator[Problem]:
    root, places = dataset.get("data_root") or "", dataset.get("data_prefix") or {}
    images, labels = (Path(root, places.get(key) or "") for key in ("img_path", "seg_map_path"))
    if dataset.get("ann_file") or not (images.is_dir() and labels.is_dir()):
        return
    endings = _ending(dataset, "img_suffix", ".jpg"), _ending(dataset, "seg_map_suffix", ".png")
    try:
        names, labelled = _names(images, endings[0]), _names(labels, endings[1])
    except OSError as error:  # such as a link to itself, at which mmseg ends too
        yield Problem(f"{error.filename or images}: {error.strerror}")
        return
    if not names:
        others = Counter(path.suffix for path in images.rglob("*") if path.is_file())
        there = ", ".join(f"{count} {ending}" for ending, count in others.most_common(3))
        yield Problem(
            f"{images}: no image ends in {endings[0]} (there: {there or 'nothing'}); "
            f"--cfg-options {split}_dataloader.dataset.img_suffix=.png changes what is looked for"
        )
        return
    absent = sorted(names - labelled)
    if absent:
        yield Problem(
            f"{labels}: {len(absent)} of {len(names)} images have no label map, such as "
            f"{absent[0]}{endings[1]}"
        )


def _ending(dataset: Any, key: str, default: str) -> str:
    """File endings of a set: its own, or those its type was written with."""
    if dataset.get(key):
        return str(dataset[key])
    with DATASETS.switch_scope_and_registry("mmseg") as registry:
        kind = registry.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
    parameter = signature(kind).parameters.get(key) if kind else None
    given = parameter.default if parameter else None
    return given if isinstance(given, str) else default


def _names(folder: Path, ending: str) -> set[str]:
    """Paths of files in a folder and those within, as mmseg lists them, without their ending."""
    found = list_dir_or_file(str(folder), list_dir=False, suffix=ending, recursive=True)
    return {name.removesuffix(ending) for name in found}
