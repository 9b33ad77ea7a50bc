"""Writing ADE20K's form: label maps of a set in another format, and the parts of one."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmseg.datasets import CityscapesDataset, PascalVOCDataset
from tqdm import tqdm

from mmengine_agent.data.convert import Source
from mmengine_agent.data.formats.cityscapes import label_pairs
from mmengine_agent.data.formats.records import find_image, mask_of
from mmengine_agent.data.formats.voc import read_lists
from mmengine_agent.data.images import ImageError, measure, open_whole
from mmengine_agent.data.split import choose_val
from mmengine_agent.draw import write_image
from mmengine_agent.errors import UserError
from mmseg_agent.data.label_maps import find_pairs, main_suffix

_FOLDERS = {"train": "training", "val": "validation"}  # ADE20K's words for splits
# Cityscapes' numbers of the classes that are evaluated, in the order of mmseg's names
# (github.com/mcordts/cityscapesScripts, helpers/labels.py)
_CITYSCAPES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


class MapSet(NamedTuple):
    """Label maps of another numbering.

    Attributes:
        names: of the classes.
        numbers: the value of each class in the maps; all others are ignored.
        maps: gives (split, image, label map).
    """

    names: Sequence[str]
    numbers: Sequence[int]
    maps: Callable[[Path], Iterator[tuple[str, Path, Path]]]


_cityscapes_maps = partial(label_pairs, ending="labelIds")


def _voc_maps(root: Path) -> Iterator[tuple[str, Path, Path]]:
    for split, names in read_lists(root / "ImageSets/Segmentation").items():
        for name in names:
            image = find_image([root / "JPEGImages"], f"{name}.jpg")
            yield split, image, root / "SegmentationClass" / f"{name}.png"


# by format: what has label maps of its own
MAP_SETS = {
    "cityscapes": MapSet(CityscapesDataset.METAINFO["classes"], _CITYSCAPES, _cityscapes_maps),
    "voc": MapSet(PascalVOCDataset.METAINFO["classes"], range(21), _voc_maps),
}


def write_set(source: Source, folder: Path, background: str | None) -> list[str]:
    """Paint the objects of a set into label maps, later ones above; a line on each split.

    Args:
        source: the set.
        folder: to write to.
        background: the name of a class for pixels of no object; without it they are ignored.
    """
    first = 2 if background else 1
    numbers = {name: number for number, name in enumerate(source.names, first)}
    if first + len(numbers) > 255:
        raise UserError(f"{len(numbers)} classes: label maps hold 254 at most")
    paths = [picture.path for picture in source.pictures]
    base, ending = os.path.commonpath([path.parent for path in paths]), main_suffix(paths)
    for picture in tqdm(source.pictures, "paint", unit="image", disable=None):
        labels = np.full(picture.size[::-1], first - 1, np.uint8)
        for shape in picture.shapes:
            number = numbers[shape.name]
            if shape.mask:
                labels[mask_of(shape.mask)] = number
            for polygon in shape.polygons:  # one by one: overlapping parts would leave holes
                corners = np.reshape(polygon, (-1, 2)).round().astype(np.int32)
                cv2.fillPoly(labels, [corners], number)
            if not shape.mask and not shape.polygons:
                source.notes.change("boxes, which have no outline: left out", picture.path)
        name = str(picture.path.relative_to(base).with_suffix(""))
        for split in picture.splits:
            _add(folder, split, name, picture.path, labels, ending)
    _write_names(folder, [*([background] if background else []), *source.names])
    return _summary(folder)


def convert_maps(form: str, root: Path, folder: Path) -> list[str]:
    """Number the label maps of a set anew, 0 = ignore, 1 = first class; a line on each split.

    Raises:
        UserError: if there are none, or one cannot be read or goes with no image.
    """
    names, numbers, maps = MAP_SETS[form]
    table = np.zeros(256, np.uint8)
    table[[*numbers]] = np.arange(1, len(names) + 1)
    for split, image, label in tqdm([*maps(root)], "labels", unit="image", disable=None):
        try:
            values = np.asarray(open_whole(label))
            size, _ = measure(image, fast=True)
        except ImageError as error:
            raise UserError(error.args[1]) from None
        if values.shape != size[::-1] or values.dtype != np.uint8:
            raise UserError(f"{label}: {values.shape} {values.dtype}, its image is {size}")
        _add(folder, split, label.stem, image, table[values], image.suffix)
    _write_names(folder, names)
    if not (lines := _summary(folder)):
        raise UserError(f"{root}: no label maps of {form} were found")
    return lines


def split_set(
    images: Path, labels: Path, folder: Path, share: float, seed: int, group_by: str | None
) -> list[str]:
    """Link the pairs of two folders as training and validation; a line on each.

    Raises:
        UserError: if an image or a label map is alone, or the set cannot be split.
    """
    pairs, faults = find_pairs(images, labels)
    if faults:
        raise UserError(
            f"{len(faults)} files are not one of a pair, such as {faults[0].place}: "
            f"{faults[0].message}; `prepare_data.py check --format ade20k` lists them"
        )
    chosen = choose_val((pair.name for pair in pairs), share, seed, group_by)
    for pair in pairs:
        split = "val" if pair.name in chosen else "train"
        _add(folder, split, pair.name, pair.image, pair.label, pair.image.suffix)
    return _summary(folder)


def _add(
    folder: Path, split: str, name: str, image: Path, label: Path | np.ndarray, ending: str
) -> None:
    """Link an image under an ending, as training reads one alone, and link or write its labels."""
    part = _FOLDERS.get(split, split)
    link = folder / "images" / part / f"{name}{ending}"
    target = folder / "annotations" / part / f"{name}.png"
    for path in (link, target):
        path.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(image.resolve())
    if isinstance(label, Path):
        target.symlink_to(label.resolve())
    else:
        write_image(target, label)


def _write_names(folder: Path, names: Sequence[str]) -> None:
    (folder / "classes.txt").write_text("\n".join(names) + "\n")


def _summary(folder: Path) -> list[str]:
    parts = sorted((folder / "annotations").glob("*")) if folder.is_dir() else []
    return [f"{part.name}: {len([*part.rglob('*.png')])} label maps" for part in parts]
