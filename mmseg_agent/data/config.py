"""A segmentation config's data: pointed at a user's, and looked at before a run."""

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmengine_agent.config_walk import walk
from mmengine_agent.data.faults import STOPS
from mmengine_agent.data.images import IMAGES
from mmengine_agent.data.user_data import DataFlags, datasets, type_of
from mmengine_agent.errors import Problem
from mmengine_agent.swap_backbone import import_adapter
from mmseg_agent.data.label_maps import Labels, read_label
from mmseg_agent.data.palette import read_palette

_LOOKED = 8  # label maps of a split, before a run


def point_at(cfg: Config, flags: DataFlags) -> dict[str, Any] | None:
    """Point loaders at a user's ADE20K-like data; names and colours, if the user gave any."""
    palette = read_palette(flags.palette) if flags.palette else None
    classes = palette.names if palette else flags.classes
    for split, dataset in datasets(cfg):
        dataset.data_root = flags.root or dataset.get("data_root") or ""
        train, prefix = split == "train", dataset.get("data_prefix") or {}
        images = flags.train_images if train else flags.val_images
        if classes:
            _name_classes(dataset)
            if images:
                dataset.pop("ann_file", None)  # a list of other images
        folders = {"img_path": images, "seg_map_path": flags.train_ann if train else flags.val_ann}
        dataset.data_prefix = {**prefix, **{key: each for key, each in folders.items() if each}}
        _set_ending(dataset)
        if palette:
            dataset.label_table = palette.table
    if classes:
        import_adapter(cfg, "mmseg")  # a stock config does not know our class
    if palette or flags.labels_from is not None:
        _number_labels(cfg, not palette and flags.labels_from == 1, bool(palette))
    if not classes:
        return None
    colours = {"palette": [list(each) for each in palette.colours]} if palette else {}
    return {"classes": classes, **{key: value for key, value in colours.items() if value}}


def _name_classes(dataset: Any) -> None:
    """ADE20KDataset and others know their own names only; this takes any."""
    if dataset.type != "NamedSegDataset":
        dataset.setdefault("reduce_zero_label", bool(_default(dataset, "reduce_zero_label")))
        dataset.type = "NamedSegDataset"
    dataset.setdefault("img_suffix", ".jpg")
    dataset.setdefault("seg_map_suffix", ".png")


def _set_ending(dataset: Any) -> None:
    """Have images read by the ending that those of the folder have, if they have one."""
    folder = Path(dataset.data_root, dataset.data_prefix.get("img_path") or "")
    endings = {path.suffix for path in (folder.iterdir() if folder.is_dir() else ())}
    endings = {ending for ending in endings if ending.lower() in IMAGES}
    known = str(dataset.get("img_suffix") or _default(dataset, "img_suffix") or ".jpg")
    if len(endings) == 1 and not known.endswith(tuple(endings)):
        dataset.img_suffix = endings.pop()


def _default(dataset: Any, name: str) -> Any:
    """What the class of a data set takes for an argument that is not given; None if unknown."""
    kind = type_of(dataset, "mmseg")
    parameters = inspect.signature(kind.__init__).parameters if kind else {}
    return parameters[name].default if name in parameters else None


def _number_labels(cfg: Config, from_one: bool, mapped: bool) -> None:
    """Have every loader read label maps from 1 or from 0, or by the table of its data set."""
    pipelines = [cfg.get("tta_pipeline")]
    for _, dataset in datasets(cfg):
        dataset.reduce_zero_label = from_one
        pipelines.append(dataset.get("pipeline"))
    for _, step in walk(pipelines):
        if step.get("type") in ("LoadAnnotations", "LoadMappedAnnotations"):
            step.type = "LoadMappedAnnotations" if mapped else "LoadAnnotations"
            step.pop("reduce_zero_label", None)  # that of the data set counts


def data_problems(cfg: Config, splits: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with the sets of some splits, as far as their folders are there."""
    for split, dataset in datasets(cfg):
        if split in splits:
            yield from _set_problems(dataset, split)


def _set_problems(dataset: Any, split: str) -> Iterator[Problem]:
    root, prefix = dataset.get("data_root") or "", dataset.get("data_prefix") or {}
    images, labels = (Path(root, prefix.get(key) or "-") for key in ("img_path", "seg_map_path"))
    if dataset.get("ann_file") or not (images.is_dir() and labels.is_dir()):
        return
    try:
        with DATASETS.switch_scope_and_registry("mmseg") as registry:
            built = registry.build({**dataset, "lazy_init": True, "pipeline": []})
        found = [Path(each["seg_map_path"]) for each in built.load_data_list()]
    except OSError as error:  # such as a link to itself, at which mmseg ends too
        yield Problem(f"{error.filename or images}: {error.strerror}")
        return
    absent = [path for path in found if not path.exists()]
    if not found:
        others = Counter(path.suffix for path in images.rglob("*") if path.is_file())
        there = ", ".join(f"{count} {ending}" for ending, count in others.most_common(3))
        yield Problem(
            f"{images}: no image ends in {built.img_suffix} (there: {there or 'nothing'}); "
            f"--cfg-options {split}_dataloader.dataset.img_suffix=.png changes what is looked for"
        )
    elif absent:
        number = f"{len(absent)} of {len(found)}"
        yield Problem(f"{labels}: {number} images have no label map, such as {absent[0].name}")
    else:
        yield from _label_problems(built, found[:: max(1, len(found) // _LOOKED)])


def _label_problems(dataset: Any, paths: Sequence[Path]) -> Iterator[Problem]:
    """What is wrong with most of some label maps, and whether they begin at another number."""
    names = dataset.metainfo.get("classes") if not dataset.label_map else None
    count, first = names and len(names), int(dataset.reduce_zero_label)
    labels = Labels(count, first, getattr(dataset, "label_table", None))
    values: set[int] = set()
    wrong = []
    for path in paths:
        pixels, faults = read_label(path, None, labels)
        values |= pixels.keys()
        wrong += [(path, kind, text) for kind, text in faults if kind in STOPS]
    if 2 * len({path for path, *_ in wrong}) > len(paths):  # single files are for --on-bad-sample
        path, kind, text = wrong[0]
        yield Problem(f"{path}: {text.removeprefix(f'{path}: ')} ({STOPS[kind]})")
    elif _seems_from_zero(values, first, count):
        yield Problem(
            f"the label maps that were looked at, such as {paths[0]}, have 0, which is ignored, "
            f"and no {count}, the last class: if they begin at 0, add --labels-from 0",
            fatal=False,
        )


def _seems_from_zero(values: set[int], first: int, classes: int | None) -> bool:
    """Whether label maps that are to begin at 1 look as if they begin at 0."""
    if not (first and classes) or 0 not in values or classes in values:
        return False
    return 255 in values or {*range(classes)} <= values
