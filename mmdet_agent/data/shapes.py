"""Boxes, areas and masks of annotations, as COCO has them, in pixels.

A box is [x, y, width, height], a mask a list of polygons [x1, y1, x2, y2, ...] or run lengths
(RLE). Checks yield (kind, message) of each thing that is wrong. Files have millions of numbers, so
that plain lists are looked at without making arrays of them.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

from mmengine_agent.data.images import Size

TOLERANCE = 1.0  # pixels: annotators' tools round, and COCO itself does
_FAR = 5  # times the image's longer side: pycocotools walks along a polygon pixel by pixel

Found = Iterator[tuple[str, str]]


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number; true and false are not."""
    return type(value) is int


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether JSON values are finite numbers; true and false are not."""
    try:
        return {int, float}.issuperset(map(type, values)) and math.isfinite(sum(values))
    except OverflowError:  # of whole numbers beyond floats
        return False


def box_faults(box: Any, size: Size | None) -> Found:
    """What is wrong with a box in an image of ``size``, None if unknown."""
    if not isinstance(box, list) or len(box) != 4:
        yield "box-length", f"bbox is {_short(box)}"
    elif not are_numbers(box):
        yield "box-number", f"bbox is {_short(box)}"
    elif min(box[2:]) <= 0:
        yield "box-empty", f"bbox is {_short(box)}"
    elif size and _beyond((box[0], box[1], box[0] + box[2], box[1] + box[3]), size):
        yield "box-outside", f"bbox is {_short(box)} in {size[0]} x {size[1]}"
    elif min(box[2:]) < 1:
        yield "box-tiny", f"bbox is {_short(box)}"


def area_faults(note: dict[str, Any]) -> Found:
    """What is wrong with an annotation's area."""
    if "area" not in note:
        yield "area-missing", "no area"
    elif not are_numbers([note["area"]]):
        yield "area-type", f"area is {_short(note['area'])}"
    elif note["area"] <= 0:
        yield "area-value", f"area is {note['area']}"


def mask_faults(mask: Any, size: Size | None) -> Found:
    """What is wrong with a segmentation; None and [] are no mask."""
    if mask is None or mask == []:
        yield "mask-missing", "no segmentation"
    elif isinstance(mask, list):
        faults = dict(fault for polygon in mask for fault in polygon_faults(polygon, size))
        yield from faults.items()  # one of a kind is enough for an annotation
        if not faults.keys() - {"polygon-outside"} and not any(map(polygon_area, mask)):
            yield "mask-empty", "polygons without an area"
    elif isinstance(mask, dict):
        yield from _rle_faults(mask, size)
    else:
        yield "mask-type", f"segmentation is of type {type(mask).__name__}"


def polygon_faults(polygon: Any, size: Size | None) -> Found:
    """What is wrong with a polygon in an image of ``size``, None if unknown."""
    if not isinstance(polygon, list):
        yield "mask-type", f"a polygon of type {type(polygon).__name__}"
    elif not are_numbers(polygon):
        yield "polygon-number", "a polygon with something else than finite numbers"
    elif size and max(map(abs, polygon), default=0) > _FAR * max(size):
        yield "polygon-far", f"a corner is more than {_FAR - 1} images away"
    elif len(polygon) < 6 or len(polygon) % 2:
        yield "polygon-length", f"a polygon of {len(polygon)} numbers"
    elif size and _beyond(_ends(polygon), size):
        reach = "x {0:g}..{2:g}, y {1:g}..{3:g}".format(*_ends(polygon))
        yield "polygon-outside", f"a polygon over {reach} in {size[0]} x {size[1]}"


def polygon_area(polygon: list[float]) -> float:
    """The area of a polygon, in square pixels."""
    x = [each - polygon[0] for each in polygon[::2]]  # near 0, where products keep their digits
    y = [each - polygon[1] for each in polygon[1::2]]
    return abs(sum(x[i - 1] * y[i] - x[i] * y[i - 1] for i in range(len(x)))) / 2


def bounds(mask: list[list[float]]) -> list[float]:
    """The box around polygons without faults."""
    left, top, right, bottom = _ends([number for polygon in mask for number in polygon])
    return [left, top, right - left, bottom - top]


def clip_box(box: list[float], size: Size) -> list[float]:
    """The part of a box that is in the image; width or height 0 if there is none."""
    left, top, right, bottom = clip_polygon([*box[:2], box[0] + box[2], box[1] + box[3]], size)
    return [left, top, right - left, bottom - top]


def clip_polygon(polygon: list[float], size: Size) -> list[float]:
    """A polygon with its corners moved into the image."""
    return [min(max(each, 0), size[i % 2]) for i, each in enumerate(polygon)]


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    whole = one[2] * one[3] + other[2] * other[3] - both
    return both / whole if whole > 0 else 0.0


def runs(counts: Any) -> list[int] | None:
    """The run lengths of an RLE, from a list or from COCO's compressed text; None if neither.

    pycocotools reads beyond the end of broken text, so it is given only what was decoded here.
    """
    if isinstance(counts, list):
        return counts if all(map(is_whole, counts)) else None
    return _decode(counts) if isinstance(counts, str) else None


def _beyond(ends: Sequence[float], size: Size) -> bool:
    """Whether (left, top, right, bottom) lie out of an image, by more than the tolerance."""
    (left, top, right, bottom), (width, height) = ends, size
    return min(left, top) < -TOLERANCE or right > width + TOLERANCE or bottom > height + TOLERANCE


def _ends(polygon: list[float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom."""
    x, y = polygon[::2], polygon[1::2]
    return min(x), min(y), max(x), max(y)


def _rle_faults(mask: dict[str, Any], size: Size | None) -> Found:
    sides: Any = mask.get("size")
    if not isinstance(sides, list) or not all(map(is_whole, sides)) or len(sides) != 2:
        yield "rle-size", f"size is {_short(sides)}"
        return
    if min(sides) <= 0 or (size and tuple(sides) != size[::-1]):
        yield "rle-size", f"size is {sides}, the image is {size and size[::-1]}"
        return
    found, wanted = runs(mask.get("counts")), sides[0] * sides[1]
    if found is None or min(found, default=0) < 0 or sum(found) != wanted:
        total = "cannot be read" if found is None else f"sum up to {sum(found)}"
        yield "rle-counts", f"counts {total}; the image has {wanted} pixels"
    elif not sum(found[1::2]):
        yield "mask-empty", "an RLE without foreground"


def _decode(text: str) -> list[int] | None:
    """COCO's text of runs: six bits a character, five of value, one for 'more'; low bits first.

    From the fourth run on, what is written is the difference from the run two before.
    """
    found: list[int] = []
    value = shift = 0
    for code in text.encode("ascii", "replace"):
        bits = code - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:  # negative: the sign goes on upwards
            value -= 1 << shift
        found.append(value + found[-2] if len(found) > 2 else value)
        value = shift = 0
    return None if shift else found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
