"""Palette files: the class of each colour, or of each number, in the label maps of a user."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmengine_agent.data.images import ImageError
from mmengine_agent.draw import Colour
from mmengine_agent.errors import UserError

Table = dict[str, int]  # label, from 0, by colour '#rrggbb' or by number '7'; 255 is ignored

IGNORE = "ignore"  # the name of what is no class
_NUMBER, _GAP = r"(\d{1,5})", r"[\s,]+"
_COLOUR = _GAP.join([_NUMBER] * 3)
# 'road 128 64 128', also with commas and as CVAT exports it: 'road:128,64,128::'
_NAME_FIRST = re.compile(rf"(?P<name>.*[^\s:,])[\s:,]+{_COLOUR}[\s:,]*")
_COLOUR_FIRST = re.compile(rf"{_COLOUR}{_GAP}(?P<name>.*\S)\s*")
_NAME_AND_NUMBER = re.compile(rf"(?P<name>.*[^\s:,])[\s:,]+{_NUMBER}\s*")


class Palette(NamedTuple):
    """What a palette file says.

    Attributes:
        names: of the classes, in the order of their first lines.
        colours: of each class, for drawing; empty if the file has numbers.
        table: see ``Table``.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    table: Table


def read_palette(path: str) -> Palette:
    """Read a file with a class and its colour, or its number, on each line.

    Lines of one name are one class, and those named 'ignore' are none. '#' begins a comment.

    Raises:
        UserError: if the file cannot be read, or a line is none of these.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--palette: cannot read {path}: {error}") from error
    names: dict[str, Colour] = {}
    table: Table = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, values = _parse(text, f"--palette: {path}:{number}")
        key = f"#{bytes(values).hex()}" if len(values) == 3 else str(values[0])
        if table and (len(values) == 3) != next(iter(table)).startswith("#"):
            raise UserError(f"--palette: {path}:{number}: colours and numbers in one file")
        label = 255
        if name != IGNORE:
            red, green, blue = (*values, 0, 0)[:3]
            names.setdefault(name, (red, green, blue))
            label = [*names].index(name)
        if table.setdefault(key, label) != label:
            raise UserError(f"--palette: {path}:{number}: {line.strip()}: {key} has another name")
    if not 0 < len(names) < 255:
        raise UserError(f"--palette: {path} names {len(names)} classes; 1 to 254 can be learnt")
    colours = tuple(names.values()) if next(iter(table)).startswith("#") else ()
    return Palette(tuple(names), colours, table)


def map_labels(image: Image.Image, table: Table) -> np.ndarray:
    """The labels (H, W) uint8 of a label map, from 0; 255 is ignored.

    A map with a palette of its own counts as its colours, or as its numbers, as the table has them.

    Raises:
        ImageError: 'range' at a colour or number that the table lacks, 'channels' if it has
            numbers and the map has colours.
    """
    coloured = next(iter(table)).startswith("#")
    values = np.asarray(image.convert("RGB") if coloured else image).astype(np.int32)
    if coloured:
        values = values @ np.array([1 << 16, 1 << 8, 1], np.int32)
    elif values.ndim != 2:
        raise ImageError("channels", f"mode {image.mode}, but the palette file has numbers")
    known = {int(key.lstrip("#"), 16 if coloured else 10): label for key, label in table.items()}
    keys = np.array(sorted(known), np.int32)
    places = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    unknown = keys[places] != values
    if unknown.any():
        y, x = (int(each) for each in np.argwhere(unknown)[0])
        found = int(values[y, x])
        text = f"colour {(found >> 16, found >> 8 & 255, found & 255)}" if coloured else str(found)
        more = f"{unknown.sum()} such pixels" if unknown.sum() > 1 else "one pixel"
        raise ImageError("range", f"{text} at x {x}, y {y} is not in the palette file ({more})")
    return np.array([known[key] for key in keys.tolist()], np.uint8)[places]


def _parse(text: str, place: str) -> tuple[str, tuple[int, ...]]:
    """Name and colour, or name and number, of a line."""
    for pattern in (_NAME_FIRST, _COLOUR_FIRST, _NAME_AND_NUMBER):
        found = pattern.fullmatch(text)
        if found is None:
            continue
        name = found.re.groupindex["name"]
        values = tuple(int(found[i]) for i in range(1, pattern.groups + 1) if i != name)
        if len(values) == 3 and max(values) > 255:
            break
        return found["name"], values
    raise UserError(
        f"{place}: {text!r} is neither a name and a colour, such as 'road 128 64 128', nor a name "
        "and a number"
    )
