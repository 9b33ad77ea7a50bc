"""CVAT: one XML file, 'CVAT for images 1.1', with boxes, polygons and masks."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmengine_agent.data.formats.read_xml import Node, read_xml
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
    turned,
)
from mmengine_agent.data.images import Size
from mmengine_agent.errors import UserError

_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def is_cvat(root: Path) -> bool:
    """Whether a folder has an XML file of CVAT's form."""
    for path in _files(root)[:1]:
        with path.open("rb") as file:
            return b"<annotations>" in file.read(4096)
    return False


def read_cvat(root: Path, notes: Notes, classes: Sequence[str]) -> tuple[Sequence[str], Any]:
    """Class names, in the order of the file's labels, and an iterator over the images.

    Raises:
        UserError: if there is no file that can be read.
    """
    trees: dict[Path, Node] = {}
    for path in _files(root):
        with notes.at(path):
            trees[path] = read_xml(path)
    notes.require_whole()
    names = [*classes]
    for path, tree in trees.items():
        if tree.tag != "annotations" or tree.find("track") is not None:
            raise UserError(f"{path}: export it as 'CVAT for images 1.1'")
        names += [] if classes else [str(each.text) for each in tree.iterfind("meta//label/name")]
    every = (each for path, tree in trees.items() for each in _pictures(path, tree, notes))
    return [*dict.fromkeys(names)], every


def _files(root: Path) -> list[Path]:
    return [root] if root.is_file() else sorted(root.glob("*.xml"))


def _pictures(path: Path, tree: Node, notes: Notes) -> Iterator[Picture]:
    for node in tree.iter("image"):
        with notes.at(f"{path}:{node.line}"):  # type: ignore[attr-defined]
            yield _read(path, node, notes)


def _read(path: Path, image: Any, notes: Notes) -> Picture:
    subset, split = image.get("subset", ""), _SPLITS.get(image.get("subset", "").lower())
    folders = [path.parent / "images" / subset, path.parent / "images", path.parent]
    width, height = _values(image, "width", "height")
    file = find_image(folders, image.get("name", ""))
    picture = open_picture(file, [split] if split else ALL, (int(width), int(height)))
    found: list[tuple[Any, Shape]] = []
    # later ones lie above, of two with one z_order too
    for node in sorted(image, key=lambda each: numbers([each.get("z_order") or 0])):
        with notes.at(f"{path}:{node.line}"):
            shape = _shape(node, picture.size, notes)
            shape.name = node.get("label", "")
            if not shape.name:
                raise Broken(f"a {node.tag} without a label")
            texts = {str(each.get("name")): each.text or "" for each in node.iter("attribute")}
            shape.attributes = texts | ({"occluded": 1} if node.get("occluded") == "1" else {})
            found.append((node.get("group_id"), shape))
    picture.shapes = join_parts(found)
    return picture


def _shape(node: Node, size: Size, notes: Notes) -> Shape:
    """The object of an element, without its name."""
    turn = math.radians(numbers([node.get("rotation") or 0])[0])
    if node.tag == "polygon":
        values = numbers(node.get("points", "").replace(";", ",").split(","))
        if len(values) < 6 or len(values) % 2:
            raise Broken(f"a polygon of {len(values)} numbers")
        return Shape("", polygons=[values])
    if node.tag == "mask":
        return Shape("", mask=_mask(node, size))
    if node.tag == "ellipse":
        notes.change(f"ellipses: carried as polygons of {CORNERS} corners")
        x, y, *half = _values(node, "cx", "cy", "rx", "ry")
        return Shape("", polygons=[ring(x, y, (half[0], half[1]), turn)])
    if node.tag != "box":
        raise LeftOut(f"<{node.tag}> of images")
    left, top, width, height = box_of(*_values(node, "xtl", "ytl", "xbr", "ybr"))
    if not turn:
        return Shape("", [left, top, width, height])
    notes.change("turned boxes: carried as polygons of four corners")
    corners = [(x * width / 2, y * height / 2) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return Shape("", polygons=[turned(corners, left + width / 2, top + height / 2, turn)])


def _mask(node: Node, size: Size) -> dict[str, Any]:
    """Run lengths of a box, row by row, background first."""
    left, top, width, height = map(int, _values(node, "left", "top", "width", "height"))
    runs = [int(each) for each in numbers(node.get("rle", "").split(","))]
    inside = min(left, top, *runs) >= 0 and left + width <= size[0] and top + height <= size[1]
    if not inside or sum(runs) != width * height:
        raise Broken(f"a mask of {sum(runs)} pixels in a box of {width} x {height} in {size}")
    whole = np.zeros(size[::-1], bool)
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
    whole[top : top + height, left : left + width] = pixels
    return rle_of(whole)


def _values(node: Any, *keys: str) -> list[float]:
    return numbers(node.get(key, f"no {key}") for key in keys)
