"""A set in a format of ``FORMATS``, read whole, for the writers of COCO and of label maps."""

import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mmengine_agent.data.formats import FORMATS
from mmengine_agent.data.formats.records import Notes, Picture, Shape
from mmengine_agent.errors import UserError


@dataclass
class Source:
    """A set that was read.

    Attributes:
        root: the folder that image files are relative to.
        names: of the classes, in their order.
        pictures: the images with their objects.
        notes: what is carried otherwise, or not at all.
    """

    root: Path
    names: list[str]
    pictures: list[Picture]
    notes: Notes

    @property
    def splits(self) -> list[str]:
        return [*dict.fromkeys(split for each in self.pictures for split in each.splits)]

    def file_name(self, picture: Picture) -> str:
        """The path of an image below the root.

        Raises:
            UserError: if it is not below.
        """
        name = os.path.relpath(picture.path, self.root)
        if name.split(os.sep)[0] == os.pardir:
            raise UserError(
                f"{picture.path} is not in {self.root}: give --root a folder above both"
            )
        return Path(name).as_posix()


def read_set(form: str, root: Path, classes: Sequence[str]) -> Source:
    """Read a set.

    Args:
        form: a key of ``FORMATS``.
        root: its folder, or its YAML or XML file.
        classes: names, if only they are to be carried, in their order.

    Raises:
        UserError: with every place that cannot be read, or if there is nothing.
    """
    if not root.exists():
        raise UserError(f"--root: there is no {root} (from {Path.cwd()})")
    notes = Notes()
    listed, found = FORMATS[form].read(root, notes, classes)
    pictures = [*tqdm(found, f"read {form}", unit="image", disable=None)]
    notes.require_whole()
    if not pictures:
        raise UserError(f"{root}: nothing in the form of {form} was found")
    present = {shape.name for each in pictures for shape in each.shapes}
    names = [*(classes or listed)]
    if not classes:
        names += sorted(present - {*names})
    for each in pictures:
        each.shapes = [*_chosen(each.shapes, names, notes, each.path)]
    return Source(root.parent if root.is_file() else root, names, pictures, notes)


def changes(notes: Notes) -> list[str]:
    """Lines on what is carried otherwise, or not at all; one that says so if it is nothing."""
    if not notes.changed:
        return ["nothing was left out"]
    lines = [f"  {what}: {count}, first {place}" for what, (count, place) in notes.changed.items()]
    return ["not carried as it is:", *lines]


def _chosen(
    shapes: Iterable[Shape], names: Sequence[str], notes: Notes, path: Path
) -> Iterable[Shape]:
    for shape in shapes:
        if shape.name in names:
            yield shape
        else:
            notes.change("objects of classes that --classes does not name: left out", path)


def next_steps(form: str, root: Path | None, out: Path) -> list[str]:
    """The commands that a user runs next, on what was written.

    Args:
        form: 'coco' or 'ade20k'.
        root: the folder that image files of COCO are relative to, None if it is not known.
        out: what was written to.
    """
    root, out = root.resolve() if root else Path("IMAGES"), out.resolve()
    if form == "coco":
        parts = {path.stem: (path, root) for path in sorted(out.glob("*.json"))}
    else:
        folders = sorted((out / "annotations").iterdir())
        parts = {each.name: (each, out / "images" / each.name) for each in folders}
    train, val = (next((n for n in parts if n.startswith(each)), None) for each in ("train", "val"))
    tool, names = "python tools/prepare_data.py", out / "classes.txt"
    classes = ["--classes", names if names.is_file() else "CLASSES"]
    lines = []
    for ann, images in parts.values():
        check = ["--ann", ann, "--images", images, *(classes if form == "ade20k" else [])]
        lines.append(f"{tool} check --format {form} {_shell(check)}")
        if not (train and val):
            flags = ["--ann", ann, *(["--images", images] if form == "ade20k" else [])]
            lines.append(
                f"{tool} split --format {form} {_shell([*flags, '--out', f'{out}-split'])}"
            )
    if train and val:
        flags = ["--data-root", out, *classes]
        if form == "coco":
            flags = ["--data-root", root, "--train-ann", parts[train][0], "--train-images", "."]
            flags += ["--val-ann", parts[val][0], "--val-images", "."]
        lines.append(f"python tools/train.py CONFIG {_shell(flags)}")
    return ["next:", *(f"  {line}" for line in lines)]


def _shell(words: Iterable[object]) -> str:
    return shlex.join(map(str, words))
