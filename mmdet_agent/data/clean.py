"""A COCO file without its faults; the original is read only.

What can be mended for certain is mended; what has a fault then is left out. The lists are written
anew, and images stay where they are.
"""

from itertools import count
from typing import Any

from mmdet_agent.data.coco import Context, annotation_faults, has_id, name_of
from mmdet_agent.data.shapes import (
    area_faults,
    bounds,
    box_faults,
    clip_box,
    clip_polygon,
    is_whole,
    polygon_area,
    polygon_faults,
)
from mmengine_agent.data.check import CheckedSet
from mmengine_agent.data.faults import WARNINGS
from mmengine_agent.data.images import Size


def cleaned(content: dict[str, Any], found: CheckedSet) -> dict[str, Any]:
    """A COCO file's content without its faults; ``content`` stays as it is."""
    images, image_ids = _keep(content["images"], "file_name", "image", found)
    categories, category_ids = _keep(content["categories"], "name", "category", found)
    new = {**content, "images": images, "categories": categories, "annotations": []}
    context = Context.of(new)
    notes = [note for note in content["annotations"] if isinstance(note, dict)]
    unused = count(1 + max((note["id"] for note in notes if has_id(note)), default=0))
    for note in notes:
        note = dict(note)
        for key, ids in (("image_id", image_ids), ("category_id", category_ids)):
            if is_whole(note.get(key)):
                note[key] = ids.get(note[key])
        if not has_id(note) or note["id"] in context.ids:
            note["id"] = next(unused)
        mend(note, context.sizes.get(note.get("image_id", 0)))
        if not {kind for kind, _ in annotation_faults(note, context)} - WARNINGS.keys():
            new["annotations"].append(note)
    return new


def mend(note: dict[str, Any], size: Size | None) -> None:
    """Give an annotation of an image of ``size`` iscrowd and area, and clip it, in place."""
    if not is_whole(note.get("iscrowd")) or note["iscrowd"] not in (0, 1):
        note["iscrowd"] = 0
    mask, box = note.get("segmentation"), note.get("bbox")
    if size is None:
        return
    polygons = []
    for polygon in mask if isinstance(mask, list) else []:
        if {kind for kind, _ in polygon_faults(polygon, size)} <= {"polygon-outside"}:
            polygons.append(clip_polygon(polygon, size))
    polygons = [each for each in polygons if polygon_area(each)]
    if polygons and mask != polygons:
        note["segmentation"] = polygons
    wrong = {kind for kind, _ in box_faults(box, size)}
    if wrong - {"box-tiny"} and polygons:
        note["bbox"] = bounds(polygons)
    elif "box-outside" in wrong:
        note["bbox"] = clip_box(note["bbox"], size)
    if dict(area_faults(note)):
        sides = note["bbox"][2:] if not dict(box_faults(note.get("bbox"), size)) else (0, 0)
        note["area"] = sum(map(polygon_area, polygons)) or sides[0] * sides[1]


def _keep(
    entries: list[Any], key: str, part: str, found: CheckedSet
) -> tuple[list[Any], dict[int, int]]:
    """The images or categories without faults, and which id each id becomes.

    Annotations of an entry that is listed twice go to the first of its name. Nothing is kept of an
    id that stands for several names.
    """
    bad = found.faulty(f"{part}-")
    twice = {entries[fault.index]["id"] for fault in found.faults.get(f"{part}-id-twice", [])}
    first: dict[str, int] = {}
    kept, ids = [], {}
    for index, entry in enumerate(entries):
        if has_id(entry):
            ids[entry["id"]] = first.setdefault(name_of(entry, key), entry["id"])
            if index not in bad and entry["id"] not in twice:
                kept.append(entry)
    return kept, ids
