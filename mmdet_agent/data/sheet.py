"""Pictures of a COCO-like set for a contact sheet: boxes and masks drawn."""

from collections import defaultdict
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from mmdet_agent.data.boxes import box_faults
from mmdet_agent.data.masks import corners, mask_faults, polygon_fault, runs
from mmengine_agent.data.check import Place
from mmengine_agent.data.faults import Findings
from mmengine_agent.data.sheet import choose, read_small, tile, with_faults
from mmengine_agent.draw import (
    RED,
    Array,
    Colour,
    class_colours,
    paint_box,
    paint_mask,
    paint_polygon,
)

_OF_ANNOTATIONS = ("annotation", "box", "polygon", "rle", "mask", "area", "iscrowd")


def coco_tiles(place: Place, content: dict[str, Any] | None, findings: Findings) -> list[Array]:
    """Up to 12 pictures, those with faults first."""
    if content is None:
        return []
    entries, notes = content["images"], content["annotations"]
    places = {_key(entry, "id"): index for index, entry in enumerate(entries)}
    by_image: dict[int, list[int]] = defaultdict(list)  # annotations of an image entry
    for number, note in enumerate(notes):
        by_image[places.get(_key(note, "image_id"), -1)].append(number)
    bad_notes, outside = with_faults(findings, _OF_ANNOTATIONS), findings.at("image-path")
    lost = with_faults(findings, ("image",))
    bad = [i for i in range(len(entries)) if i in lost or bad_notes & {*by_image[i]}]
    categories = content["categories"]
    colours = class_colours(len(categories))
    classes = {_key(e, "id"): (str(_key(e, "name")), colours[i]) for i, e in enumerate(categories)}
    tiles = []
    for index in choose(bad, len(entries)):
        name = str(_key(entries[index], "file_name"))
        picture, size = read_small(place.images / ("" if index in outside else name))
        for number in by_image[index]:
            if isinstance(note := notes[number], dict):
                text, colour = classes.get(_key(note, "category_id"), ("?", RED))
                if number in bad_notes:  # a class may be red, too
                    text, colour = f"{text} (faulty)", RED
                _draw(picture, size, note, text, colour)
        tiles.append(tile(picture, name, index in bad))
    return tiles


def _draw(
    picture: Array, size: tuple[int, int], note: dict[str, Any], text: str, colour: Colour
) -> None:
    """Draw what can be drawn of an annotation of an image of ``size`` (width, height)."""
    scale = np.array(picture.shape[1::-1]) / size
    mask = note.get("segmentation")
    if isinstance(mask, list):
        good = (corners(each) for each in mask if not polygon_fault(each, None))
        for points in good:
            if points is not None:
                paint_polygon(picture, points * scale, colour)
    elif isinstance(mask, dict) and not dict(mask_faults(mask, size)):
        plain = {"size": mask["size"], "counts": runs(mask["counts"])}
        inside = coco_mask.decode(coco_mask.frPyObjects(plain, *size[::-1]))
        paint_mask(picture, cv2.resize(inside, picture.shape[1::-1]).astype(bool), colour)
    box = note.get("bbox")
    if isinstance(box, list) and dict(box_faults(box, None)).keys() <= {"box-tiny"}:
        left, top, width, height = box
        ends = np.array([left, top, left + width, top + height]) * [*scale, *scale]
        paint_box(picture, ends.tolist(), colour, text)


def _key(entry: Any, key: str) -> Any:
    """A plain value of an entry, or None: entries may be anything."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int | str) else None
