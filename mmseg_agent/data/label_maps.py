"""A folder of images and one of label PNGs, as ADE20K has them: 0 = ignore, 1 = first class."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from mmengine_agent.data.faults import Fault
from mmengine_agent.data.images import (
    IMAGES,
    ImageError,
    Probe,
    open_image,
    probe,
    read,
    require_whole,
)

Array = np.ndarray


@dataclass(frozen=True)
class Pair:
    """An image and its label map; ``name`` is the path in both folders, without an ending."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Label:
    """A label map: pixels of each value 0..65535 that occurs, and what is wrong with it."""

    size: tuple[int, int] | None = None
    pixels: dict[int, int] = field(default_factory=dict)
    faults: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PairContent:
    """What a pair holds."""

    size: tuple[int, int] | None
    pixels: dict[int, int]
    faults: list[Fault]


def find_pairs(images: Path, labels: Path) -> tuple[list[Pair], list[Fault]]:
    """The pairs of two folders, by name, and what is wrong with the folders' files.

    Folders within are searched too, as mmseg does. Training reads images of one ending; the most
    frequent is taken for it.
    """
    pictures, maps = _files(images), _files(labels)
    names = {path.with_suffix("") for path in pictures}
    ending = main_suffix(pictures)
    faults = [
        Fault("image-suffix", str(path), f"the others end in {ending}", str(path))
        for path in pictures
        if path.suffix != ending
    ]
    pngs = {path.with_suffix("") for path in maps if path.suffix == ".png"}
    others = {path.with_suffix(""): path for path in maps if path.suffix != ".png"}
    for name, path in others.items():
        faults.append(Fault("label-suffix", str(path), f"it ends in {path.suffix}", str(name)))
    for name in sorted(names - pngs - others.keys()):
        faults.append(Fault("label-missing", str(name), f"no {labels / name}.png", str(name)))
    for name in sorted(pngs - names):
        faults.append(Fault("label-orphan", f"{name}.png", f"no image in {images}", str(name)))
    if not pictures:
        faults.append(Fault("set-empty", str(images), f"no files ending in {', '.join(IMAGES)}"))
    first = {path.with_suffix(""): path for path in reversed(pictures)}
    both = sorted(names & pngs)
    return [Pair(str(n), images / first[n], labels / f"{n}.png") for n in both], faults


def read_pair(pair: Pair, classes: int, fast: bool = False) -> PairContent:
    """Open image and label map, and compare them; labels are decoded even if ``fast``."""
    picture, label = probe(pair.image, fast), read_label(pair.label, classes)
    faults = list(_pair_faults(picture, label))
    places = {"image": pair.image.name, "label": pair.label.name}
    placed = [Fault(k, f"{pair.name} ({places[k[:5]]})", m, pair.name) for k, m in faults]
    return PairContent(picture.size, label.pixels, placed)


def read_label(path: Path, classes: int) -> Label:
    """Read a label map as mmseg does, by Pillow: the numbers of a palette, not its colours."""
    try:
        data = read(path)
        image = open_image(data)
        require_whole(image, data, fast=False)
    except ImageError as error:
        word, message = error.args
        return Label(faults=((f"label-{word}", message),))
    values = np.asarray(image)
    if values.ndim != 2:
        channels = (("label-channels", f"mode {image.mode}, {values.shape[2]} channels"),)
        return Label(image.size, faults=channels)
    pixels = _count(values)
    return Label(image.size, pixels, tuple(_value_faults(pixels, classes)))


def require_plain(path: Path, classes: int) -> None:
    """Raise ImageError if labels are colours or deeper than 8 bits."""
    with Image.open(path) as image:
        if image.mode in {"L", "P", "1"}:
            return
    for kind, message in read_label(path, classes).faults:
        if kind != "label-empty":
            raise ImageError(kind, f"{path}: {message}")


def unused_classes(pixels: Counter[int], names: list[str]) -> Iterator[Fault]:
    """Classes without a pixel."""
    for number, name in enumerate(names, 1):
        if not pixels[number]:
            yield Fault("category-unused", f"label {number}", f"no pixel of {name}", number)


def main_suffix(pictures: list[Path]) -> str:
    """The most frequent ending of image files; '.jpg' if there are none."""
    endings = Counter(path.suffix for path in pictures)
    return max(endings, key=lambda ending: (endings[ending], ending)) if endings else ".jpg"


def _files(folder: Path) -> list[Path]:
    """Image files in a folder and those within, relative to it, in order; no hidden ones."""
    every = (path for path in folder.rglob("*") if not path.name.startswith("."))
    found = (path for path in every if path.suffix.lower() in IMAGES)
    return sorted(path.relative_to(folder) for path in found)


def _count(values: Array) -> dict[int, int]:
    """Pixels of each value; other values than whole numbers are cut."""
    if values.dtype in (np.uint8, np.bool_):
        counts = np.bincount(values.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in counts.nonzero()[0]}
    found, counts = np.unique(values.astype(np.int64), return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _value_faults(pixels: dict[int, int], classes: int) -> Iterator[tuple[str, str]]:
    deep = [value for value in pixels if not 0 <= value <= 255]
    unknown = [value for value in pixels if classes < value < 255]
    if deep:
        yield "label-depth", f"values up to {max(deep)}"
    if unknown:
        more = " ..." if len(unknown) > 8 else ""
        yield (
            "label-range",
            f"{', '.join(map(str, unknown[:8]))}{more}; the classes are 1..{classes}",
        )
    if not pixels.keys() - {0, 255}:
        yield "label-empty", "every pixel is 0 or 255"


def _pair_faults(picture: Probe, label: Label) -> Iterator[tuple[str, str]]:
    if picture.error:
        yield f"image-{picture.error}", picture.message
    if picture.size and picture.orientation != 1:
        yield "image-rotated", f"EXIF orientation {picture.orientation}"
    if picture.size and label.size and picture.size != label.size:
        image, labels = (f"{width} x {height}" for width, height in (picture.size, label.size))
        yield "label-size", f"the image is {image}, the labels are {labels}"
    yield from label.faults
