"""Mending one COCO annotation, where there is no doubt what it should say."""

from typing import Any

from mmdet_agent.data.boxes import Size, area_faults, box_faults, clip, overlap
from mmdet_agent.data.masks import (
    area,
    bounds,
    clip_polygon,
    corners,
    polygon_fault,
)


def mend(note: dict[str, Any], size: Size | None) -> dict[str, Any]:
    """A copy of an annotation, mended: clipped, polygons that are none left out, area computed.

    Args:
        note: the annotation; what cannot be mended stays as it is.
        size: (width, height) of its image, None if unknown.
    """
    new = dict(note)
    if new.get("iscrowd") not in (0, 1) or not isinstance(new["iscrowd"], int):
        new["iscrowd"] = 0
    if size is None:
        return new
    if isinstance(new.get("segmentation"), list):
        new["segmentation"] = _polygons(new["segmentation"], size)
    new["bbox"] = _box(new.get("bbox"), new.get("segmentation"), size)
    if dict(area_faults(new)):
        new["area"] = _area(new)
    return new


def _polygons(mask: list[Any], size: Size) -> list[Any]:
    """The polygons that are ones, clipped; the mask as it is if none would be left."""
    found = []
    for polygon in mask:
        fault = polygon_fault(polygon, size)
        if fault is None:
            found.append(polygon)
        elif fault[0] == "polygon-outside":
            found.append(clip_polygon(polygon, size))
    return [polygon for polygon in found if _polygon_area(polygon)] or mask


def _box(box: Any, mask: Any, size: Size) -> Any:
    """A box, clipped; if it is none, or is elsewhere than the polygons, the box around those."""
    faults = dict(box_faults(box, size)).keys() - {"box-tiny"}
    if not faults:
        return box
    around = bounds(mask) if isinstance(mask, list) and mask else None
    if faults == {"box-outside"} and (not around or overlap(clip(box, size), around) >= 0.5):
        return clip(box, size)
    return around or box


def _area(note: dict[str, Any]) -> Any:
    """The area of the polygons; of the box if there are none."""
    mask, box = note.get("segmentation"), note["bbox"]
    if isinstance(mask, list) and mask and bounds(mask):
        return sum(map(_polygon_area, mask))
    if dict(box_faults(box, None)).keys() - {"box-tiny"}:
        return note.get("area")
    return box[2] * box[3]


def _polygon_area(polygon: list[Any]) -> float:
    points = corners(polygon)
    return 0.0 if points is None else area(points)
