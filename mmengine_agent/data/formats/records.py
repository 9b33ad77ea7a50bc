"""What every format is read into: images with their objects, and what could not be carried."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmengine_agent.data.images import IMAGES, ImageError, Size, measure
from mmengine_agent.errors import UserError

ALL = ("all",)  # the splits of an image, where a format has none
CORNERS = 72  # of circles and ellipses as polygons
_SHOWN = 20  # broken lines


@dataclass
class Shape:
    """An object of an image, in pixels.

    Attributes:
        name: of its class.
        box: [x, y, width, height]; None if its outline says it.
        polygons: its parts, each [x1, y1, x2, y2, ...].
        mask: an RLE of COCO, uncompressed, in place of polygons.
        crowd: several objects, or one that counts neither as found nor as missed.
        attributes: what else the file says of it, carried as it is.
    """

    name: str
    box: list[float] | None = None
    polygons: list[list[float]] = field(default_factory=list)
    mask: dict[str, Any] | None = None
    crowd: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Picture:
    """An image file, its size as training sees it, the splits that it is in, and its objects."""

    path: Path
    size: Size
    splits: Sequence[str]
    shapes: list[Shape] = field(default_factory=list)


class Broken(Exception):
    """Something in a file that cannot be read."""


class LeftOut(Exception):
    """Something that neither COCO nor label maps have room for."""


@dataclass
class Notes:
    """What a reader meets on its way.

    Attributes:
        broken: what cannot be read, with its place.
        changed: count and first place of what is carried otherwise, or not at all.
        place: where the reader is.
    """

    broken: list[str] = field(default_factory=list)
    changed: dict[str, tuple[int, str]] = field(default_factory=dict)
    place: str = ""

    @contextmanager
    def at(self, place: Any) -> Iterator[None]:
        """Where the reader is within the block; of what it raises a note is taken."""
        before, self.place = self.place, str(place)
        try:
            yield
        except Broken as error:
            self.broken.append(f"{place}: {error}")
        except LeftOut as error:
            self.change(f"{error}: left out")
        finally:
            self.place = before

    def change(self, what: str, place: Any = None) -> None:
        """Note something that is carried otherwise than it was, or not at all."""
        count, first = self.changed.get(what, (0, str(place or self.place)))
        self.changed[what] = (count + 1, first)

    def require_whole(self) -> None:
        """Raise UserError with what is broken."""
        if self.broken:
            lines = [f"  {each}" for each in self.broken[:_SHOWN]]
            more = len(self.broken) - _SHOWN
            lines += [f"  and {more} more"] * (more > 0)
            head = f"{len(self.broken)} places cannot be read; nothing was written:"
            raise UserError("\n".join([head, *lines]))


def open_picture(path: Path, splits: Sequence[str], listed: Size | None = None) -> Picture:
    """An image without objects, opened for its size.

    Args:
        path: its file.
        splits: that it is in.
        listed: the size that the annotations say, if they do.

    Raises:
        Broken: if it is not there, is cut short or is of another size.
    """
    try:
        size, _ = measure(path, fast=True)
    except ImageError as error:
        raise Broken(f"its image: {error.args[1]}") from None
    if listed not in (None, size):
        raise Broken(f"{listed} pixels listed, {size} in {path} (EXIF's turn applied)")
    return Picture(path, size, splits)


def numbers(texts: Iterable[Any]) -> list[float]:
    """Finite numbers; raises Broken if one is none."""
    found = list(texts)
    try:
        values = [float(each) for each in found]
    except (TypeError, ValueError):
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise Broken(f"not numbers: {' '.join(str(each) for each in found)[:80]}")
    return values


def box_of(left: float, top: float, right: float, bottom: float) -> list[float]:
    """The box [x, y, width, height] of two corners; raises Broken if it is empty."""
    if right <= left or bottom <= top:
        raise Broken(f"a box without width or height: {[left, top, right, bottom]}")
    return [left, top, right - left, bottom - top]


def ring(x: float, y: float, half: tuple[float, float], turn: float = 0.0) -> list[float]:
    """A polygon of 72 corners around (x, y): an ellipse, turned by radians."""
    angles = [2 * math.pi * step / CORNERS for step in range(CORNERS)]
    return turned(
        [(half[0] * math.cos(each), half[1] * math.sin(each)) for each in angles], x, y, turn
    )


def turned(points: Iterable[tuple[float, float]], x: float, y: float, turn: float) -> list[float]:
    """Points around (0, 0) as a polygon around (x, y), turned by radians."""
    cos, sin = math.cos(turn), math.sin(turn)
    pairs = [(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in points]
    return [round(each, 3) for pair in pairs for each in pair]


def join_parts(shapes: Iterable[tuple[Any, Shape]]) -> list[Shape]:
    """One object of all polygons that have a group and a name in common.

    Args:
        shapes: each with its group, None if it has none.
    """
    found: dict[Any, Shape] = {}
    for index, (group, shape) in enumerate(shapes):
        alone = group is None or not shape.polygons
        first = found.setdefault((index,) if alone else (group, shape.name), shape)
        if first is not shape:
            first.polygons += shape.polygons
            first.attributes |= shape.attributes
    return [*found.values()]


def find_image(folders: Sequence[Path], name: str) -> Path:
    """The file of an image in one of some folders; with another ending if that one is not there."""
    places = [folder / name for folder in folders]
    places += [
        place.with_suffix(ending) for place in places for ending in sorted(IMAGES) if place.suffix
    ]
    places += [folder / f"{name}{ending}" for folder in folders for ending in sorted(IMAGES)]
    return next((place for place in places if place.is_file()), places[0])


def image_files(folder: Path) -> list[Path]:
    """The image files in a folder and those within, in order; no hidden ones."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGES)
    return sorted(path for path in found if not path.name.startswith("."))


def rle_of(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) as COCO's RLE, uncompressed: run lengths down the columns, background first."""
    pixels = np.concatenate([[False], mask.astype(bool).ravel(order="F")])
    edges = np.flatnonzero(pixels[1:] != pixels[:-1])
    runs = np.diff([0, *edges.tolist(), mask.size])
    return {"size": list(mask.shape), "counts": runs.tolist()}


def mask_of(rle: dict[str, Any]) -> np.ndarray:
    """The mask (H, W) of an uncompressed RLE."""
    runs = rle["counts"]
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(rle["size"], order="F")
