"""Drawing for every picture of images: the colours of classes, masks, boxes, label maps and text.

Images are arrays (H, W, 3), uint8, BGR as OpenCV has them, and are drawn over in place; where they
are large, only what is drawn takes memory. Colours are red, green and blue of 0 to 255.
"""

import colorsys
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib import colormaps, font_manager
from PIL import Image, ImageDraw, ImageFont

from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file

Array = np.ndarray
Colour = tuple[int, int, int]
RED: Colour = (230, 40, 40)
WHITE: Colour = (255, 255, 255)
_FAR = 100_000  # pixels; OpenCV's numbers end a little beyond
_ROWS = 256  # of a label map that are drawn at once
_TEXT = 12  # size of text in pixels


def class_colours(count: int, palettes: Iterable[Any] = ()) -> tuple[Colour, ...]:
    """The colours of ``count`` classes.

    Args:
        count: number of classes.
        palettes: what data sets give as colours; the first counts that has one for each class. One
            of another length is of other classes (mmdet keeps COCO's for any names), and one that
            mmseg drew by chance is none.

    Returns:
        The palette, or colours of which the first 20 are easy to tell apart.
    """
    by_chance = np.random.RandomState(42).randint(0, 255, (count, 3)).tolist()
    for palette in palettes:
        colours = [[*map(int, colour)] for colour in palette or ()]
        if len(colours) == count and colours != by_chance:
            return tuple((r, g, b) for r, g, b in colours)
    pairs = colormaps["tab20"](np.arange(20))[:, :3].tolist()  # dark, light, dark, ...
    hues = (colorsys.hsv_to_rgb(0.618 * i % 1, 0.8, 1) for i in range(count - len(pairs)))
    shares = [*pairs[::2], *pairs[1::2], *hues][:count]
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in shares)


# ---- on images


def paint_labels(image: Array, labels: Array, colours: Sequence[Colour]) -> None:
    """Lay colours over an image by its labels (H, W), from 0; others are left clear."""
    table = np.array(colours, np.uint8)[:, ::-1] // 2
    for top in range(0, len(image), _ROWS):
        rows, part = labels[top : top + _ROWS], image[top : top + _ROWS]
        shown = (rows >= 0) & (rows < len(table))
        part[shown] = part[shown] // 2 + table[rows[shown]]


def paint_mask(image: Array, mask: Array, colour: Colour) -> None:
    """Lay a colour over the pixels of a mask (H, W), bool."""
    image[mask] = image[mask] // 2 + np.array(colour[::-1], np.uint8) // 2


def paint_box(image: Array, box: Sequence[float], colour: Colour, text: str = "") -> None:
    """Draw a box (x1, y1, x2, y2), with a text in its upper left corner."""
    left, top, right, bottom = np.clip(box, -_FAR, _FAR).round().astype(int).tolist()
    cv2.rectangle(image, (left, top), (right, bottom), colour[::-1], 2)
    if text:
        write_text(image, text, left, top, colour)


def write_text(image: Array, text: str, left: int, top: int, colour: Colour) -> None:
    """Write on a ground of some colour, within the image as far as it has room."""
    black = np.dot(colour, (0.3, 0.6, 0.1)) > 140  # on a light ground
    label = Image.new("RGB", (round(_font().getlength(text)) + 4, _TEXT + 4), colour)
    ImageDraw.Draw(label).text((2, 0), text, (0, 0, 0) if black else WHITE, _font())
    y = max(0, min(top, image.shape[0] - label.height))
    x = max(0, min(left, image.shape[1] - label.width))
    ground = image[y : y + label.height, x : x + label.width]
    ground[:] = np.asarray(label)[: ground.shape[0], : ground.shape[1], ::-1]


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), _TEXT)  # matplotlib's own


# ---- images


def read_image(path: Path) -> Array | None:
    """An image as training sees it; None if it cannot be read."""
    return cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None


def fit(image: Array, width: int, height: int) -> Array:
    """An image resized to fit into ``width`` x ``height`` pixels."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def encode(image: Array, name: str, *options: int) -> bytes:
    """An image as a file of the kind that the ending of its name says, with OpenCV's options.

    Raises:
        UserError: if such a file cannot hold it.
    """
    done, data = cv2.imencode(Path(name).suffix.lower(), image, options)
    if not done:
        raise UserError(
            f"{name}: no file of this kind has {image.shape[1]} x {image.shape[0]} pixels"
        )
    return data.tobytes()


def write_image(path: Path, image: Array) -> None:
    """Write an image, atomically, by ``encode``."""
    write_file(path, encode(image, str(path)))


def write_legend(path: Path, names: Sequence[str], colours: Sequence[Colour]) -> None:
    """Write a picture of colours and names, in columns of 30."""
    width = 40 + max(int(_font().getlength(name)) for name in names)
    columns = -(-len(names) // 30)
    picture = np.full((20 * min(len(names), 30) + 10, width * columns, 3), 255, np.uint8)
    for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
        x, y = width * (number // 30) + 8, 20 * (number % 30) + 6
        picture[y : y + 14, x : x + 14] = colour[::-1]
        write_text(picture, name, x + 20, y, WHITE)
    write_image(path, picture)
