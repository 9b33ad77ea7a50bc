"""What was predicted, as a picture, a legend and files."""

import json
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from agent_toolkit.api import SEGMENT_OFFSET
from agent_toolkit.page.models import PageModel
from agent_toolkit.page.pictures import sample
from mmengine_agent.draw import Colour, encode, fit, paint_box, paint_labels, paint_mask

LAYERS = ("masks", "boxes", "names", "labels")  # that can be drawn over the image
SHOWN = 1200  # pixels of a side on the page
SAVED = 4096  # and in a file, at most


class Box(NamedTuple):
    """An object's box: left, top, width and height as shares of the image's sides."""

    place: tuple[float, float, float, float]
    colour: Colour
    text: str


class Entry(NamedTuple):
    """A class in the legend."""

    name: str
    colour: Colour
    note: str


class Drawn(NamedTuple):
    """A result as it is shown: the boxes lie over the picture and are not in it."""

    picture: np.ndarray  # (h, w, 3) uint8 BGR
    boxes: list[Box]
    legend: list[Entry]


def draw_result(
    model: PageModel,
    image: np.ndarray,
    result: Any,
    threshold: float,
    layers: Collection[str],
    side: int = SHOWN,
) -> Drawn:
    """A result of ``model.predict`` in a picture that fits into ``side`` x ``side`` pixels.

    Args:
        model: the model.
        image: (H, W, 3) uint8 BGR.
        result: objects, or labels of pixels.
        threshold: least score of objects.
        layers: of ``LAYERS``.
        side: of the picture, in pixels.
    """
    picture = fit(image, side, side)
    if model.has_objects:
        return _draw_objects(model, image, picture, keep(result, threshold), layers)
    labels = labels_of(result)
    if "labels" in layers:
        shown = sample(labels, picture.shape[:2], picture.shape[:2])
        paint_labels(picture, shown, model.classes.colours)
    numbers, counts = np.unique(labels, return_counts=True)
    order = sorted(zip(counts.tolist(), numbers.tolist(), strict=True), reverse=True)
    names, colours = model.classes.names, model.classes.colours
    legend = [
        Entry(names[number], colours[number], f"{count / labels.size:.1%}")
        for count, number in order
        if number < len(names)
    ]
    return Drawn(picture, [], legend)


def keep(result: Any, threshold: float) -> Any:
    """Of objects those with so high a score; labels as they are."""
    if isinstance(result, list):
        return [each for each in result if each.score >= threshold]
    return result


def labels_of(result: np.ndarray) -> np.ndarray:
    """Labels (H, W) of a segmentor's result, or of a panoptic one's segments."""
    return result % SEGMENT_OFFSET


def _draw_objects(
    model: PageModel,
    image: np.ndarray,
    picture: np.ndarray,
    objects: list[Any],
    layers: Collection[str],
) -> Drawn:
    names, colours = model.classes.names, model.classes.colours
    height, width = image.shape[:2]
    boxes = []
    for each in reversed(objects):  # the surest on top
        colour = colours[each.label]
        if "masks" in layers and each.mask is not None:
            _paint_part(picture, picture.shape[1] / width, each.mask, colour)
        x1, y1, x2, y2 = each.box
        place = (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height)
        text = f"{names[each.label]} {100 * each.score:.0f}" if "names" in layers else ""
        boxes.append(Box(place, colour, text))
    counts: dict[int, int] = {}
    for each in objects:
        counts[each.label] = counts.get(each.label, 0) + 1
    order = sorted(counts, key=lambda label: -counts[label])
    legend = [Entry(names[label], colours[label], f"{counts[label]}") for label in order]
    return Drawn(picture, boxes if "boxes" in layers else [], legend)


def _paint_part(picture: np.ndarray, scale: float, mask: Any, colour: Colour) -> None:
    """Lay a colour over an object's pixels in a picture that is ``scale`` times the image."""
    (rows, columns), part = mask.decode()
    top, left = round(rows.start * scale), round(columns.start * scale)
    size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
    resized = cv2.resize(part.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    room = picture[top : top + size[1], left : left + size[0]]
    paint_mask(room, resized[: room.shape[0], : room.shape[1]], colour)


class Saved(NamedTuple):
    """Files for downloading."""

    results: bytes  # JSON
    labels: bytes | None  # label map or segments, PNG, as tools/predict.py writes them


def save_result(model: PageModel, image: np.ndarray, result: Any, threshold: float) -> Saved:
    """A result as files: COCO results of objects, segments, or the shares of classes."""
    shape = image.shape[:2]
    writer, classes = model.writer(), model.classes
    with tempfile.TemporaryDirectory() as folder:
        writer.save(Path(folder), "image", 1, shape, keep(result, threshold))
        found = next(Path(folder).rglob("*.png"), None)
        labels = found.read_bytes() if found else None
    columns = zip(classes.ids, classes.names, classes.colours, strict=True)
    content: dict[str, Any] = {
        "model": model.title,
        "image": {"id": 1, "width": shape[1], "height": shape[0]},
        "categories": [{"id": i, "name": name, "color": colour} for i, name, colour in columns],
    }
    if model.has_objects:
        content |= {"score_threshold": threshold, "annotations": writer.saved}
    elif writer.saved:
        content |= {"segments": writer.saved[0]["segments_info"]}
    else:
        numbers, counts = np.unique(result, return_counts=True)
        pairs = zip(numbers.tolist(), counts.tolist(), strict=True)
        content |= {"pixels": {classes.names[number]: count for number, count in pairs}}
    return Saved(json.dumps(content, indent=1).encode(), labels)


def save_picture(
    model: PageModel, image: np.ndarray, result: Any, threshold: float, layers: Collection[str]
) -> bytes:
    """The picture as a PNG, of the image's own size or of ``SAVED`` pixels a side if it is more."""
    side = min(SAVED, max(image.shape[:2]))
    picture, boxes, _ = draw_result(model, image, result, threshold, layers, side)
    height, width = picture.shape[:2]
    for (left, top, wide, high), colour, text in boxes:
        corners = (left * width, top * height, (left + wide) * width, (top + high) * height)
        paint_box(picture, corners, colour, text)
    return encode(picture, "picture.png")
