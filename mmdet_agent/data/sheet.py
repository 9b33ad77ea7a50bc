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
from mmengine_agent.data.sheet import RED, Array, chosen, faulty, palette, read, tile

_OF_ANNOTATIONS = ("annotation", "box", "polygon", "rle", "mask", "area", "iscrowd")
_FAR = 100_000  # pixels: beyond, OpenCV's numbers end


def coco_tiles(place: Place, content: dict[str, Any] | None, findings: Findings) -> list[Array]:
    """Up to 12 pictures, those with faults first."""
    if content is None:
        return []
    entries, notes = content["images"], content["annotations"]
    places = {_key(entry, "id"): index for index, entry in enumerate(entries)}
    by_image: dict[int, list[int]] = defaultdict(list)  # annotations of an image entry
    for number, note in enumerate(notes):
        by_image[places.get(_key(note, "image_id"), -1)].append(number)
    bad = faulty(findings, _OF_ANNOTATIONS)
    lost, outside = faulty(findings, ("image",)), findings.at("image-path")
    names = {_key(entry, "id"): str(_key(entry, "name")) for entry in content["categories"]}
    first = [index for index in range(len(entries)) if index in lost or bad & {*by_image[index]}]
    tiles = []
    for index in chosen(first, len(entries)):
        name = str(_key(entries[index], "file_name"))
        picture = read(place.images / ("" if index in outside else name))
        for number in by_image[index]:
            _draw(picture, notes[number], names, number in bad)
        tiles.append(tile(picture, name, index in lost or bool(bad & {*by_image[index]})))
    return tiles


def _draw(picture: Array, note: Any, names: dict[Any, str], bad: bool) -> None:
    """Draw what is drawable of an annotation; those with faults in red."""
    if not isinstance(note, dict):
        return
    number = _key(note, "category_id")
    colour = RED if bad else tuple(palette()[hash(number) % 255 + 1].tolist())
    thick = max(2, max(picture.shape[:2]) // 250)  # seen after shrinking
    _draw_mask(picture, note.get("segmentation"), colour, thick)
    box = note.get("bbox")
    if isinstance(box, list) and dict(box_faults(box, None)).keys() <= {"box-tiny"}:
        ends = np.array([*box[:2], box[0] + box[2], box[1] + box[3]])
        left, top, right, bottom = np.clip(ends, -_FAR, _FAR).astype(int).tolist()
        cv2.rectangle(picture, (left, top), (right, bottom), colour, thick)
        place, scale = (left + thick, max(top, 0) + 12 * thick), thick / 3.5
        for ink, width in (((0, 0, 0), 3 * thick), (colour, thick)):
            cv2.putText(picture, names.get(number, "?"), place, 0, scale, ink, width)


def _draw_mask(picture: Array, mask: Any, colour: tuple[int, ...], thick: int) -> None:
    height, width = picture.shape[:2]
    if isinstance(mask, list):
        good = [corners(each) for each in mask if not polygon_fault(each, None)]
        lines = [np.clip(each, -_FAR, _FAR).astype(np.int32) for each in good if each is not None]
        cv2.polylines(picture, lines, True, colour, thick)
    elif isinstance(mask, dict) and not dict(mask_faults(mask, (width, height))):
        plain = {"size": mask["size"], "counts": runs(mask["counts"])}
        inside = coco_mask.decode(coco_mask.frPyObjects(plain, height, width)).astype(bool)
        picture[inside] = picture[inside] // 2 + np.array(colour, np.uint8) // 2


def _key(entry: Any, key: str) -> Any:
    """A plain value of an entry, or None: entries may be anything."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int | str) else None
