"""Masks as COCO has them: polygons [[x1, y1, x2, y2, ...], ...] or run lengths (RLE)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mmdet_agent.data.boxes import Size, beyond, is_whole

Array = np.ndarray


def mask_faults(mask: Any, size: Size | None) -> Iterator[tuple[str, str]]:
    """(kind, message) of each thing wrong with a segmentation; None and [] are no mask."""
    if mask is None or mask == []:
        yield "mask-missing", "no segmentation"
    elif isinstance(mask, list):
        yield from _polygons_faults(mask, size)
    elif isinstance(mask, dict):
        yield from _rle_faults(mask, size)
    else:
        yield "mask-type", f"segmentation is of type {type(mask).__name__}"


def polygon_fault(polygon: Any, size: Size | None) -> tuple[str, str] | None:
    """(kind, message) of what is wrong with one polygon, or None."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        length = len(polygon) if isinstance(polygon, list) else type(polygon).__name__
        return "polygon-length", f"a polygon of {length} numbers"
    points = corners(polygon)
    if points is None:
        return "polygon-number", "a polygon with something else than finite numbers"
    low, high = points.min(0), points.max(0)
    if size and beyond((*low, *high), size):
        reach = f"x {low[0]:g}..{high[0]:g}, y {low[1]:g}..{high[1]:g}"
        return "polygon-outside", f"a polygon over {reach} in {size[0]} x {size[1]}"
    return None


def corners(polygon: list[Any]) -> Array | None:
    """The corners (N, 2) of an even list of numbers; None if they are no finite numbers."""
    try:
        points = np.asarray(polygon)
    except ValueError:  # lists within, of different lengths
        return None
    if points.dtype.kind not in "iuf" or points.ndim != 1 or not np.isfinite(points).all():
        return None
    return points.reshape(-1, 2).astype(float)


def area(points: Array) -> float:
    """The area of a polygon of corners (N, 2), in square pixels."""
    x, y = (points - points[0]).T  # near 0, where differences of products keep their digits
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)


def bounds(mask: list[Any]) -> list[float] | None:
    """The box [x, y, width, height] around polygons without faults; None if one has any."""
    found = [polygon_fault(polygon, None) or corners(polygon) for polygon in mask]
    points = [each for each in found if isinstance(each, np.ndarray)]
    if not points or len(points) < len(found):
        return None
    low, high = np.concatenate(points).min(0), np.concatenate(points).max(0)
    return [*low.tolist(), *(high - low).tolist()]


def runs(counts: Any) -> list[int] | None:
    """The run lengths of an RLE, from a list or from COCO's compressed text; None if neither.

    pycocotools reads beyond the end of broken text, so it is given only what was decoded here.
    """
    if isinstance(counts, list):
        return counts if all(map(is_whole, counts)) else None
    return _decode(counts) if isinstance(counts, str) else None


def clip_polygon(polygon: list[float], size: Size) -> list[float]:
    """A polygon with its corners moved into the image."""
    return np.clip(np.reshape(polygon, (-1, 2)), 0, size).ravel().tolist()


def _polygons_faults(mask: list[Any], size: Size | None) -> Iterator[tuple[str, str]]:
    faults = [fault for polygon in mask if (fault := polygon_fault(polygon, size))]
    yield from dict(faults).items()  # one of a kind is enough for an annotation
    if not {kind for kind, _ in faults} - {"polygon-outside"}:
        points = [found for polygon in mask if (found := corners(polygon)) is not None]
        if not any(map(area, points)):
            yield "mask-empty", "polygons without an area"


def _rle_faults(mask: dict[str, Any], size: Size | None) -> Iterator[tuple[str, str]]:
    height_width: Any = mask.get("size")
    two = isinstance(height_width, list) and len(height_width) == 2
    if not two or not all(is_whole(side) and side > 0 for side in height_width):
        yield "rle-size", f"size is {str(height_width)[:60]}"
        return
    if size and tuple(height_width) != size[::-1]:
        yield "rle-size", f"size is {height_width}, the image's is [{size[1]}, {size[0]}]"
        return
    found, wanted = runs(mask.get("counts")), height_width[0] * height_width[1]
    if found is None or any(run < 0 for run in found) or sum(found) != wanted:
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
