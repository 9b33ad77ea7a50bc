"""Reading and resizing images as OpenCV does it, with Pillow and NumPy."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

Array = np.ndarray
Picture = str | Path | Image.Image | Array
_ONE = 2048  # of OpenCV's weights of uint8, which are integers
_ROWS = 64  # of an image of which the scores of all classes are held at once


class RuntimeUserError(ValueError):
    """A file, an image or a setting that cannot be used; the message says what to do."""


def read_image(image: Picture) -> Array:
    """An image (H, W, 3), uint8, RGB, turned as its EXIF data say.

    Raises:
        RuntimeUserError: if it is none.
    """
    try:
        if isinstance(image, str | Path):
            with Image.open(image) as opened:
                return _pixels(opened)
        if isinstance(image, Image.Image):
            return _pixels(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RuntimeUserError(f"{image}: cannot be read as an image: {reason}") from error
    if getattr(image, "dtype", None) != np.uint8 or image.shape[2:] != (3,) or not image.size:
        raise RuntimeUserError(
            "an image is a file, a PIL image or an array (H, W, 3) of uint8 in RGB; got "
            f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
        )
    return image


def _pixels(image: Image.Image) -> Array:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits, of which Pillow would cut the upper ones off
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert("RGB"))


def resize(image: Array, width: int, height: int, rows: slice = slice(None)) -> Array:
    """Bilinear as OpenCV's INTER_LINEAR: pixels have their centres at halves, nothing is smoothed.

    Args:
        image: (H, W, C); of uint8 the result is rounded as OpenCV's.
        width: of the result.
        height: of the result.
        rows: which of its rows are wanted.
    """
    if image.shape[:2] == (height, width):
        return image[rows]
    top, bottom, y = (each[rows] for each in _neighbours(image.shape[0], height))
    left, right, x = _neighbours(image.shape[1], width)
    y, x = y[:, None, None], x[:, None]
    if image.dtype != np.uint8:
        upper, lower = (
            image[each][:, left] * (1 - x) + image[each][:, right] * x for each in (top, bottom)
        )
        return upper * (1 - y) + lower * y
    y, x = (np.rint(share * _ONE).astype(np.int32) for share in (y, x))
    upper, lower = (
        (image[each][:, left] * (_ONE - x) + image[each][:, right] * x) >> 4
        for each in (top, bottom)
    )
    mixed = (upper * (_ONE - y) >> 16) + (lower * y >> 16)
    return ((mixed + 2) >> 2).astype(np.uint8)


def _neighbours(old: int, new: int) -> tuple[Array, Array, Array]:
    """Of ``new`` places along a side of ``old`` pixels both neighbours, and the second's share."""
    place = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    return first.clip(0, old - 1), (first + 1).clip(0, old - 1), place - first


def label_map(outputs: Mapping[str, Array], width: int, height: int) -> Array:
    """Labels (H, W) at that size: the greatest of the scores there, where a model gives scores.

    Args:
        outputs: 'logits' or 'probabilities' (classes, H', W'), or 'labels' (H', W').
        width: W.
        height: H.
    """
    scores = outputs.get("logits", outputs.get("probabilities"))
    if scores is None:
        labels = outputs["labels"]
        rows, columns = (
            ((np.arange(new) + 0.5) * old / new).astype(np.int64)
            for old, new in zip(labels.shape, (height, width), strict=True)
        )
        return labels[rows][:, columns]
    if len(scores) == 1:
        raise RuntimeUserError("one score a pixel, without its threshold: export with --labels")
    scores = scores.transpose(1, 2, 0)
    parts = (slice(first, first + _ROWS) for first in range(0, height, _ROWS))
    return np.concatenate([resize(scores, width, height, rows).argmax(-1) for rows in parts])
