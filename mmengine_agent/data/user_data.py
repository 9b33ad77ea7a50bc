"""Where the data is: one folder, given once, for every loader and evaluator of a config.

A config names data in up to six places (three loaders, three evaluators), and class names and
counts in more. ``point_at`` moves them all; ``require_data`` says what is missing before anything
is built.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmengine_agent.errors import UserError

_IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
_LAYOUTS = {
    "coco": """
    {root}/
        annotations/instances_train2017.json, instances_val2017.json
        train2017/*.jpg
        val2017/*.jpg""",
    "ade": """
    {root}/
        images/training/*.jpg, images/validation/*.jpg
        annotations/training/*.png, annotations/validation/*.png  (0 = ignore, 1 = first class)""",
}


@dataclass(frozen=True)
class DataFlags:
    """A user's own data; paths are relative to ``root``, None keeps what the config says."""

    root: str | None = None
    train_ann: str | None = None
    val_ann: str | None = None
    train_images: str | None = None
    val_images: str | None = None
    classes: tuple[str, ...] | None = None

    @classmethod
    def add_to(cls, parser: ArgumentParser) -> None:
        """Add the flags to a parser, as a group of their own."""
        group = parser.add_argument_group(
            "your own data", "COCO- or ADE20K-like; paths are relative to --data-root"
        )
        group.add_argument("--data-root", metavar="DIR", help="folder of the data set")
        ann = "COCO: annotation JSON; ADE20K: folder of label PNGs"
        group.add_argument("--train-ann", metavar="PATH", help=f"{ann}, for training")
        group.add_argument("--val-ann", metavar="PATH", help=f"{ann}, for validation and test")
        group.add_argument("--train-images", metavar="DIR", help="folder of training images")
        group.add_argument("--val-images", metavar="DIR", help="folder of validation images")
        group.add_argument(
            "--classes",
            nargs="+",
            metavar="NAME",
            help="class names in label order, or one text file with a name a line; "
            "COCO-like data need none, they are read from the annotations",
        )

    @classmethod
    def of(cls, args: Namespace) -> "DataFlags":
        """The flags a user gave."""
        classes = args.classes
        if classes and len(classes) == 1 and Path(classes[0]).suffix == ".txt":
            classes = _lines(Path(classes[0]))
        return cls(
            args.data_root,
            args.train_ann,
            args.val_ann,
            args.train_images,
            args.val_images,
            tuple(classes) if classes else None,
        )

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) is not None for field in fields(self))


def point_at(cfg: Config, flags: DataFlags) -> list[str] | None:
    """Point every loader, evaluator and head of a config at a user's data, in place.

    Args:
        cfg: a detection or segmentation config.
        flags: what the user gave; empty flags change nothing.

    Returns:
        The class names, if they are no longer the config's own.

    Raises:
        UserError: if the annotations cannot be read, or classes are wanted and not given.
    """
    if not flags:
        return None
    move = _move_coco if is_coco(cfg) else _move_ade
    for split, dataset in datasets(cfg):
        move(dataset, flags, split)
    if not is_coco(cfg):
        return _rename(cfg, flags.classes)
    _move_evaluators(cfg)
    found = _coco_classes(cfg, flags.classes)
    return _rename(cfg, None if found == _known_classes(cfg) else found)


def require_data(cfg: Config, *splits: str) -> None:
    """Raise UserError if the data of a split ('train', 'val', 'test') are not there.

    The message has every path looked for, the layout wanted, and what to do without data.
    """
    missing: dict[str, None] = {}
    for split, dataset in datasets(cfg):
        if split in splits:
            missing.update(dict.fromkeys(str(p) for p in _paths(dataset) if not p.exists()))
    if not missing:
        return
    root = next(datasets(cfg))[1].get("data_root") or "DIR"
    layout = _LAYOUTS["coco" if is_coco(cfg) else "ade"].format(root=str(root).rstrip("/"))
    raise UserError(
        f"no data: looked for {', '.join(missing)} (from {Path.cwd()}).\n"
        f"The layout wanted:{layout}\n"
        "Data elsewhere: --data-root DIR; files of your own: see --help, 'your own data'.\n"
        "No data at hand: `make demo` trains on a generated set; `python tools/make_demo_data.py` "
        "makes it for configs/demo/."
    )


def is_coco(cfg: Config) -> bool:
    """Whether a config reads COCO JSON (mmdet) rather than label maps (mmseg)."""
    return cfg.get("default_scope") != "mmseg"


def datasets(cfg: Config) -> Iterator[tuple[str, Any]]:
    """(split, dataset config) of each loader; wrappers such as RepeatDataset are opened."""
    for split in ("train", "val", "test"):
        loader = cfg.get(f"{split}_dataloader")
        todo = [loader.dataset] if loader else []
        while todo:
            dataset = todo.pop()
            inner = dataset.get("dataset") or dataset.get("datasets")
            if inner is None:
                yield split, dataset
            else:
                todo += inner if isinstance(inner, list) else [inner]


def _move_coco(dataset: Any, flags: DataFlags, split: str) -> None:
    dataset.data_root = flags.root or dataset.get("data_root") or ""
    train = split == "train"
    dataset.ann_file = (flags.train_ann if train else flags.val_ann) or dataset.ann_file
    images = flags.train_images if train else flags.val_images
    if images is not None:
        dataset.data_prefix = {"img": images}


def _move_ade(dataset: Any, flags: DataFlags, split: str) -> None:
    dataset.data_root = flags.root or dataset.get("data_root") or ""
    train = split == "train"
    images = (flags.train_images if train else flags.val_images) or dataset.data_prefix.img_path
    labels = (flags.train_ann if train else flags.val_ann) or dataset.data_prefix.seg_map_path
    dataset.data_prefix = {"img_path": images, "seg_map_path": labels}
    files = _children(Path(dataset.data_root, images))
    suffixes = {path.suffix for path in files if path.suffix.lower() in _IMAGES}
    if len(suffixes) == 1:
        dataset.img_suffix = suffixes.pop()
    if flags.classes:
        # ADE20KDataset knows its own 150 names only; this takes any, with the same zero label.
        dataset.type = "NamedSegDataset"
        dataset.reduce_zero_label = True
        dataset.setdefault("img_suffix", ".jpg")
        dataset.setdefault("seg_map_suffix", ".png")


def _move_evaluators(cfg: Config) -> None:
    for split, dataset in datasets(cfg):
        evaluators = cfg.get(f"{split}_evaluator") or []
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            if "ann_file" in evaluator:
                evaluator.ann_file = str(Path(dataset.data_root, dataset.ann_file))


def _rename(cfg: Config, classes: tuple[str, ...] | list[str] | None) -> list[str] | None:
    """Give datasets and heads the class names; None leaves the config's own."""
    if classes is None:
        return None
    for _, dataset in datasets(cfg):
        dataset.metainfo = {"classes": tuple(classes)}
    set_num_classes(cfg.model, len(classes))
    return list(classes)


def set_num_classes(node: Any, count: int) -> None:
    """Give every head of a model's config a number of classes, in place."""
    if isinstance(node, dict):
        if "num_classes" in node:
            node["num_classes"] = count
        for child in node.values():
            set_num_classes(child, count)
    elif isinstance(node, list):
        for child in node:
            set_num_classes(child, count)


def _coco_classes(cfg: Config, chosen: tuple[str, ...] | None) -> tuple[str, ...]:
    """The annotated class names, or those ``chosen`` among them, in the order of mmdet's labels.

    mmdet numbers labels by the order of the categories in each file, whatever order it is given, so
    the files of all splits must have the same.
    """
    orders: dict[Path, tuple[str, ...]] = {}
    for _, dataset in datasets(cfg):
        path = Path(dataset.data_root, dataset.ann_file)
        if path not in orders and path.exists():
            names = _categories(path)
            absent = [name for name in chosen or () if name not in names]
            if absent:
                raise UserError(
                    f"--classes: {path} has no {', '.join(absent)}; it has {', '.join(names)}"
                )
            orders[path] = tuple(name for name in names if chosen is None or name in chosen)
    if len(set(orders.values())) > 1:
        told = "; ".join(f"{path}: {', '.join(names)}" for path, names in orders.items())
        raise UserError(f"the annotation files number their classes differently ({told})")
    # without any file require_data says what is missing
    return next(iter(orders.values()), chosen or _known_classes(cfg))


def _categories(path: Path) -> tuple[str, ...]:
    try:
        return tuple(
            str(category["name"]) for category in json.loads(path.read_text())["categories"]
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no COCO annotation file: {error!r}") from error


def _known_classes(cfg: Config) -> tuple[str, ...]:
    return class_names(next(datasets(cfg))[1], "mmdet")  # only a detection config comes here


def class_names(dataset: Any, scope: str = "mmseg") -> tuple[str, ...]:
    """The class names of a data set's config: its own, or those of its type; empty if unknown."""
    found = (dataset.get("metainfo") or {}).get("classes")
    if found is None:
        with DATASETS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
        found = getattr(kind, "METAINFO", {}).get("classes")
    return tuple(_lines(Path(found))) if isinstance(found, str) else tuple(found or ())


def _paths(dataset: Any) -> Iterator[Path]:
    root = dataset.get("data_root") or ""
    if dataset.get("ann_file"):
        yield Path(root, dataset.ann_file)
    for folder in dataset.get("data_prefix", {}).values():
        yield Path(root, folder)


def _children(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"--classes: cannot read {path}: {error.strerror}") from error
