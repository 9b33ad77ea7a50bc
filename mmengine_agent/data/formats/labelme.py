"""LabelMe: a JSON file an image, with polygons, rectangles, circles and masks."""

import base64
import json
import math
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmengine_agent.data.formats.records import (
    ALL,
    CORNERS,
    Broken,
    LeftOut,
    Notes,
    Picture,
    Shape,
    box_of,
    find_image,
    join_parts,
    numbers,
    open_picture,
    ring,
    rle_of,
)
from mmengine_agent.data.images import Size

_KNOWN = {"label", "points", "group_id", "shape_type", "flags", "description", "mask"}


def is_labelme(root: Path) -> bool:
    """Whether a folder has a JSON file of LabelMe's form."""
    for path in islice(root.rglob("*.json"), 1):
        with path.open("rb") as file:
            head = file.read(1 << 16)
        return b'"shapes"' in head and (b'"imagePath"' in head or b'"flags"' in head)
    return False


def read_labelme(root: Path, notes: Notes, classes: Sequence[str]) -> tuple[Sequence[str], Any]:
    """Class names, none but those given, and an iterator over the images."""
    return classes, _pictures(root, notes)


def _pictures(root: Path, notes: Notes) -> Iterator[Picture]:
    for path in sorted(root.rglob("*.json")):
        with notes.at(path):
            yield _read(path, notes)


def _read(path: Path, notes: Notes) -> Picture:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        shapes, name = list(content["shapes"]), content.get("imagePath") or path.stem
        listed = (content.get("imageWidth"), content.get("imageHeight"))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise Broken(f"no LabelMe file: {type(error).__name__}: {error}") from None
    # tools on Windows write its separators; files may have been moved since
    name = str(name).replace("\\", "/")
    image = find_image([path.parent], name)
    if not image.is_file():
        image = find_image([path.parent, path.parent.parent / "images"], Path(name).name)
    picture = open_picture(image, ALL, None if None in listed else listed)
    if any((content.get("flags") or {}).values()):
        notes.change("flags of images: left out")
    found: list[tuple[Any, Shape]] = []
    for index, entry in enumerate(shapes):
        with notes.at(f"{path}: shapes[{index}]"):
            shape = _shape(entry, picture, notes)
            group = entry.get("group_id")
            found.append((group if isinstance(group, int | str) else None, shape))
    picture.shapes = join_parts(found)
    return picture


def _shape(entry: Any, picture: Picture, notes: Notes) -> Shape:
    name = entry.get("label") if isinstance(entry, dict) else None
    points = entry.get("points") if name else None
    if not isinstance(name, str) or not isinstance(points, list) or not all(map(_is_pair, points)):
        raise Broken("a shape needs label, a text, and points, a list of [x, y]")
    for key in sorted(entry.keys() - _KNOWN):
        if entry[key] not in (None, "", {}, []):
            notes.change(f"{key} of shapes: left out")
    kind, values = entry.get("shape_type") or "polygon", numbers(each for p in points for each in p)
    shape = _outline(kind, values, entry.get("mask"), picture, notes)
    shape.name = name
    shape.attributes = {key: value for key, value in (entry.get("flags") or {}).items() if value}
    if entry.get("description"):
        shape.attributes["description"] = entry["description"]
    return shape


def _outline(kind: str, values: list[float], mask: Any, picture: Picture, notes: Notes) -> Shape:
    """The object of one type of shape, without its name."""
    xs, ys = values[::2], values[1::2]
    if kind == "rectangle" and len(xs) in (2, 4):
        return Shape("", box_of(min(xs), min(ys), max(xs), max(ys)))
    if kind == "polygon" and len(xs) > 2:
        return Shape("", polygons=[values])
    if kind == "circle" and len(xs) == 2:
        notes.change(f"circles: carried as polygons of {CORNERS} corners")
        radius = math.dist(values[:2], values[2:])
        return Shape("", polygons=[ring(xs[0], ys[0], (radius, radius))])
    if kind == "mask" and len(xs) == 2:
        return Shape("", mask=_mask(int(xs[0]), int(ys[0]), mask, picture.size))
    if kind in ("line", "linestrip", "point", "points"):
        raise LeftOut(f"shapes of type {kind}, which have no area")
    raise Broken(f"a {kind} of {len(xs)} points")


def _mask(left: int, top: int, text: Any, size: Size) -> dict[str, Any]:
    """A mask within its box, as a PNG in base64."""
    whole = np.zeros(size[::-1], bool)
    try:
        inner = np.asarray(Image.open(BytesIO(base64.b64decode(text)))) > 0
        whole[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    except Exception as error:  # Pillow's readers raise whatever a broken file leads to
        raise Broken(f"a mask that cannot be read: {type(error).__name__}: {error}") from None
    return rle_of(whole)


def _is_pair(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2
