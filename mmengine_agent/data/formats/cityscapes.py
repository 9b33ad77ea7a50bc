"""Cityscapes: its objects, from the PNGs of instance numbers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmengine_agent.data.formats.records import Broken, Notes, Picture, Shape, open_picture, rle_of
from mmengine_agent.data.images import ImageError, open_whole

# the classes of instances by their numbers in the files
# (github.com/mcordts/cityscapesScripts, helpers/labels.py)
_THINGS = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
_IMAGE = "_leftImg8bit.png"


def is_cityscapes(root: Path) -> bool:
    """Whether a folder has the two folders of Cityscapes."""
    return (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir()


def read_cityscapes(root: Path, notes: Notes, classes: Sequence[str]) -> tuple[Sequence[str], Any]:
    """Class names, the eight of things, and an iterator over the images."""
    return [*_THINGS.values()], _pictures(root, notes)


def label_pairs(root: Path, ending: str) -> Iterator[tuple[str, Path, Path]]:
    """(split, image, label map) of each label map with an ending, such as 'labelIds'."""
    for label in sorted((root / "gtFine").glob(f"*/*/*_gtFine_{ending}.png")):
        name = label.name.replace(f"_gtFine_{ending}.png", _IMAGE)
        split, city = label.parts[-3:-1]
        yield split, root / "leftImg8bit" / split / city / name, label


def _pictures(root: Path, notes: Notes) -> Iterator[Picture]:
    for split, image, label in label_pairs(root, "instanceIds"):
        with notes.at(label):
            yield _read(image, label, split)


def _read(image: Path, label: Path, split: str) -> Picture:
    picture = open_picture(image, [split])
    try:
        values = np.asarray(open_whole(label))
    except ImageError as error:
        raise Broken(error.args[1]) from None
    if values.shape != picture.size[::-1]:
        raise Broken(f"its shape is {values.shape}, the image {picture.size}")
    for number in np.unique(values).tolist():
        crowd = number < 1000  # single ones are 26000, 26001, ...
        name = _THINGS.get(number if crowd else number // 1000)
        if name:
            picture.shapes.append(Shape(name, mask=rle_of(values == number), crowd=crowd))
    return picture
