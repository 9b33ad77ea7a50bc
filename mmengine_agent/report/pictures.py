"""Small pictures of a truth and of a prediction, as base64 JPEG, drawn by mmengine and mmseg."""

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib
import mmcv
import numpy as np

SIDE = 400  # pixels of the longer side
_QUALITY = 80  # of JPEG, per cent


def palette_of(meta: dict[str, Any]) -> list[tuple[int, ...]]:
    """Colours of a data set's classes, red, green and blue of 0 to 255.

    For up to 20 classes they can be told apart; where a data set has none, mmseg draws lots and
    mmdet keeps those of COCO.
    """
    count = len(meta["classes"])
    if count > 20 and len(meta.get("palette") or ()) >= count:
        return [tuple(map(int, color)) for color in meta["palette"][:count]]
    colors = matplotlib.colormaps["tab10" if count <= 10 else "tab20"](np.arange(count) % 20)
    return [tuple(color) for color in np.round(255 * colors[:, :3]).astype(int).tolist()]


def hexadecimal(color: Sequence[int]) -> str:
    """A colour as HTML writes it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def read(path: str) -> np.ndarray | None:
    """An image (height, width, 3), red first; None if it cannot be read as a local file."""
    try:
        return mmcv.imread(path, channel_order="rgb")
    except (OSError, ValueError, cv2.error):
        return None


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def fit(shape: Sequence[int]) -> tuple[int, int]:
    """Width and height in pixels of a picture whose longer side is ``SIDE``."""
    factor = SIDE / max(shape)
    height, width = (max(1, round(side * factor)) for side in shape)
    return width, height


def jpeg(image: np.ndarray) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
    return base64.b64encode(data.tobytes()).decode()
