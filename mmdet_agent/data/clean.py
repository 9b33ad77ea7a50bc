"""A COCO file without its faults; the original is read only.

What can be mended for certain is mended; what cannot is left out. The lists are written anew, and
images stay where they are.
"""

import json
import os
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mmdet_agent.data.boxes import Size, area_faults, box_faults, clip, is_whole, overlap
from mmdet_agent.data.coco import Context, annotation_faults, has_id
from mmdet_agent.data.masks import area, bounds, clip_polygon, corners, polygon_fault
from mmengine_agent.data.check import Place
from mmengine_agent.data.faults import KINDS, Findings
from mmengine_agent.data.new_folder import require_some
from mmengine_agent.errors import UserError

_LOST_IMAGES = ("path", "missing", "unreadable", "truncated", "format", "size")


def write_coco(
    place: Place, content: dict[str, Any] | None, findings: Findings, folder: Path
) -> str:
    """Write the cleaned annotation file into a folder; what was kept, in one line."""
    if content is None:
        raise UserError(f"--fix: {place.ann} is no COCO file; there is nothing to clean")
    good = cleaned(content, findings)
    require_some(good["images"], place.name)
    path = folder / place.ann.name
    path.write_text(json.dumps(good) + "\n")
    kept = (
        f"{len(good[name])} of {len(content[name])} {name}"
        for name in ("images", "annotations", "categories")
    )
    return f"{path.name}: {', '.join(kept)}"


def cleaned(content: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """A COCO file's content without its faults; ``content`` stays as it is."""
    lost = findings.at(*(f"image-{name}" for name in _LOST_IMAGES))
    broken = findings.at("image-keys"), findings.at("category-keys")
    images, image_ids = _merge(content["images"], "file_name", broken[0], lost)
    categories, category_ids = _merge(content["categories"], "name", broken[1])
    new = {**content, "images": images, "categories": categories, "annotations": []}
    context = Context.of(new)
    unused = 1 + max((n["id"] for n in content["annotations"] if has_id(n)), default=0)
    for note in content["annotations"]:
        if not isinstance(note, dict):
            continue
        note = {
            **note,
            "image_id": _moved(image_ids, note.get("image_id")),
            "category_id": _moved(category_ids, note.get("category_id")),
        }
        if not has_id(note) or note["id"] in context.ids:
            note["id"], unused = unused, unused + 1
        note = mend(note, context.sizes.get(note["image_id"]))
        if not any(KINDS[fault.kind].fails for fault in annotation_faults(0, note, context)):
            new["annotations"].append(note)
    return new


def mend(note: dict[str, Any], size: Size | None) -> dict[str, Any]:
    """A copy of an annotation: clipped, without broken polygons, with iscrowd and area.

    Args:
        note: the annotation; what cannot be mended stays as it is.
        size: (width, height) of its image, None if unknown.
    """
    new = dict(note)
    if not is_whole(new.get("iscrowd")) or new["iscrowd"] not in (0, 1):
        new["iscrowd"] = 0
    if size is None:
        return new
    if isinstance(new.get("segmentation"), list):
        new["segmentation"] = _mend_polygons(new["segmentation"], size)
    new["bbox"] = _mend_box(new.get("bbox"), new.get("segmentation"), size)
    if dict(area_faults(new)):
        new["area"] = _area(new)
    return new


def _merge(
    entries: list[Any], key: str, broken: set[int | str], lost: Collection[int | str] = ()
) -> tuple[list[Any], dict[int, int | None]]:
    """The images or categories to keep, the first of each name, and where the others' ids go.

    Nothing is kept of an id that stands for several names; None is where an id has no entry left.

    Args:
        entries: images or categories.
        key: of their name.
        broken: indices of entries that lack a key.
        lost: indices of entries that cannot be used, nor another one of their name.
    """
    names: dict[int, set[str]] = defaultdict(set)
    for entry in filter(has_id, entries):
        names[entry["id"]].add(str(entry.get(key)))
    kept, moved = [], {}
    first: dict[str, int | None] = {}
    for index, entry in enumerate(entries):
        if index in broken:
            continue
        name = os.path.normpath(str(entry.get(key))) if key == "file_name" else str(entry.get(key))
        if name in first:
            moved[entry["id"]] = first[name]
        elif index in lost or len(names[entry["id"]]) > 1:
            first[name] = None
        else:
            first[name] = entry["id"]
            kept.append(entry)
    return kept, moved


def _moved(ids: dict[int, int | None], number: Any) -> Any:
    return ids.get(number, number) if is_whole(number) else None


def _mend_polygons(mask: list[Any], size: Size) -> list[Any]:
    """The polygons without faults, clipped; the mask as it is if none would be left."""
    found = []
    for polygon in mask:
        fault = polygon_fault(polygon, size)
        if fault is None:
            found.append(polygon)
        elif fault[0] == "polygon-outside":
            found.append(clip_polygon(polygon, size))
    return [polygon for polygon in found if _polygon_area(polygon)] or mask


def _mend_box(box: Any, mask: Any, size: Size) -> Any:
    """A box, clipped; the one around the polygons if it is broken or elsewhere than they are."""
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
