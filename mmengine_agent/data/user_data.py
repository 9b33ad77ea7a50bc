"""Where the data is: one folder, given once, for every loader and evaluator of a config.

A config names data in up to six places (three loaders, three evaluators), and class names and
counts in more. ``point_at`` moves them all; ``require_data`` says what is missing before anything
is built.
"""

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmengine_agent.class_counts import set_class_count
from mmengine_agent.data.formats import guess_format
from mmengine_agent.errors import UserError
from mmengine_agent.task import task_of


@dataclass(frozen=True)
class DataFlags:
    """A user's own data; paths are relative to ``root``, None keeps what the config says."""

    root: str | None = None
    train_ann: str | None = None
    val_ann: str | None = None
    train_images: str | None = None
    val_images: str | None = None
    classes: tuple[str, ...] | None = None
    labels_from: int | None = None
    palette: str | None = None

    @classmethod
    def add_to(cls, parser: ArgumentParser) -> None:
        """Add the flags to a parser, as a group of their own."""
        group = parser.add_argument_group(
            "your own data", "COCO- or ADE20K-like; paths are relative to --data-root"
        )
        add = group.add_argument
        add("--data-root", metavar="DIR", help="folder of the data set")
        text = "COCO: annotation JSON; ADE20K: folder of label PNGs"
        add("--train-ann", metavar="PATH", help=f"{text}, for training")
        add("--val-ann", metavar="PATH", help=f"{text}, for validation and test")
        add("--train-images", metavar="DIR", help="folder of training images")
        add("--val-images", metavar="DIR", help="folder of validation images")
        text = "class names in label order, or one text file with a name a line; COCO-like data "
        text += "need none, they are read from the annotations"
        add("--classes", nargs="+", metavar="NAME", help=text)
        text = "number of the first class in label maps: 1, with 0 ignored, or 0, with 255 ignored"
        add("--labels-from", type=int, choices=[0, 1], help=f"{text} (default: the config's, or 1)")
        text = "file with a name and the colour, or the number, that it has in label maps, a line: "
        text += "'road 128 64 128'; 'ignore' is no class"
        add("--palette", metavar="FILE", help=text)

    @classmethod
    def of(cls, args: Namespace) -> "DataFlags":
        """The flags a user gave.

        Raises:
            UserError: if the file of class names cannot be read, a name is there twice, or two
                flags say the same.
        """
        for flag, value in (("--classes", args.classes), ("--labels-from", args.labels_from)):
            if args.palette and value is not None:
                raise UserError(f"--palette names classes and their numbers: leave {flag} out")
        annotations, images = (args.train_ann, args.val_ann), (args.train_images, args.val_images)
        classes = tuple(read_class_names(args.classes))
        if twice := next((name for name in classes if classes.count(name) > 1), None):
            raise UserError(f"--classes: {twice} is named twice")
        labels = (args.labels_from, args.palette)
        return cls(args.data_root, *annotations, *images, classes or None, *labels)

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())


def point_at(cfg: Config, flags: DataFlags) -> list[str] | None:
    """Point every loader, evaluator and head of a config at a user's data, in place.

    Args:
        cfg: a detection or segmentation config.
        flags: what the user gave; empty flags change nothing.

    Returns:
        The class names, if they are no longer the config's own.

    Raises:
        UserError: if the annotations cannot be read, classes are wanted and not given, or the
            config's own ``data_root`` is no path.
    """
    for split, dataset in datasets(cfg):
        if not isinstance(root := dataset.get("data_root") or "", str):
            raise UserError(f"{split}_dataloader.dataset.data_root must be a path, got {root!r}")
    if not flags:
        return None
    meta = task_of(cfg).point_at(cfg, flags)
    if meta is None:
        return None
    for _, dataset in datasets(cfg):
        dataset.metainfo = {**meta, "classes": tuple(meta["classes"])}
    things = len(meta["thing_classes"]) if "thing_classes" in meta else None
    set_class_count(cfg.model, len(meta["classes"]), things)
    return list(meta["classes"])


def require_data(cfg: Config, *splits: str) -> None:
    """Raise UserError if the data of a split ('train', 'val', 'test') are not there.

    The message has every path looked for, the layout wanted, and what to do without data.
    """
    missing: dict[str, None] = {}
    for split, dataset in datasets(cfg):
        if split in splits and "://" not in (dataset.get("data_root") or ""):
            names = [dataset.get("ann_file"), *dataset.get("data_prefix", {}).values()]
            paths = [Path(dataset.get("data_root") or "", name) for name in names if name]
            missing.update(dict.fromkeys(str(path) for path in paths if not path.exists()))
    if not missing:
        return
    first, task = next(datasets(cfg))[1], task_of(cfg)
    root = str(first.get("data_root") or "DIR").rstrip("/")
    layout = f"The layout wanted:{task.layout.format(root=root)}\n" * (first.type in task.known)
    raise UserError(
        f"no data: looked for {', '.join(missing)} (from {Path.cwd()}).\n{_convert(cfg, root)}"
        f"{layout}"
        "Data elsewhere: --data-root DIR; files of your own: see --help, 'your own data'.\n"
        "No data at hand: `make demo` trains on a generated set; `python tools/make_demo_data.py` "
        "makes it for configs/demo/."
    )


def _convert(cfg: Config, root: str) -> str:
    """The command that converts a folder, if it has a format that can be."""
    form, to = guess_format(Path(root)), task_of(cfg).form
    if form is None:
        return ""
    flags = shlex.join(["--from", form, "--root", root, "--to", to, "--out", f"{root}-{to}"])
    return f"{root} has the form of {form}: python tools/prepare_data.py convert {flags}\n"


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


def read_class_names(given: Sequence[str] | None) -> Sequence[str]:
    """Class names as ``--classes`` takes them: as they are, or the lines of the one .txt file.

    Raises:
        UserError: if the file cannot be read.
    """
    if not given or len(given) != 1 or not given[0].endswith(".txt"):
        return given or ()
    try:
        lines = Path(given[0]).read_text().splitlines()
    except OSError as error:
        raise UserError(f"--classes: cannot read {given[0]}: {error.strerror}") from error
    return [line.strip() for line in lines if line.strip()]


def class_names(dataset: Any, scope: str) -> tuple[str, ...]:
    """The class names of a data set's config: its own, or those of its type; empty if unknown."""
    found = (dataset.get("metainfo") or {}).get("classes")
    if found is None:
        found = getattr(type_of(dataset, scope), "METAINFO", {}).get("classes")
    return tuple(read_class_names([found] if isinstance(found, str) else found))


def type_of(dataset: Any, scope: str) -> Any:
    """The class of a data set's config, None if nothing of its name is registered."""
    with DATASETS.switch_scope_and_registry(scope) as registry, suppress(RuntimeError):
        return registry.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
    return None  # of a package that is not installed
