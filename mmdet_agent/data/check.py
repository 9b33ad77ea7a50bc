"""Checking a COCO-like set: lists, then images in threads."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO
from tqdm.contrib.concurrent import thread_map

from mmdet_agent.data import coco
from mmdet_agent.data.clean import cleaned
from mmdet_agent.data.read import LISTS, read_coco
from mmdet_agent.data.shapes import box_faults, mask_faults
from mmengine_agent.data.check import CheckedSet, Place, size_figures
from mmengine_agent.data.faults import Fault
from mmengine_agent.data.images import image_faults
from mmengine_agent.data.sheet import read_small
from mmengine_agent.draw import RED, Array, Colour, class_colours, paint_box, paint_mask
from mmengine_agent.errors import UserError

_OF_ANNOTATIONS = ("annotation", "box", "polygon", "rle", "mask", "area", "iscrowd")


@dataclass
class CocoSet(CheckedSet):
    """A COCO-like set that was checked; without ``content`` if there is none to be read."""

    content: dict[str, Any] | None = None

    def pictures(self) -> tuple[int, set[int]]:
        if self.content is None:
            return 0, set()
        images, notes = self.content["images"], self.content["annotations"]
        ids = {_value(notes[index], "image_id") for index in self.faulty(*_OF_ANNOTATIONS)}
        bad = {i for i, image in enumerate(images) if _value(image, "id") in ids - {None}}
        return len(images), bad | self.faulty("image")

    def draw(self, index: int) -> tuple[Array, str]:
        assert self.content is not None
        image, categories = self.content["images"][index], self.content["categories"]
        name, number = str(_value(image, "file_name")), _value(image, "id")
        outside = any(fault.index == index for fault in self.faults.get("image-path", []))
        picture = read_small(self.place.images / ("" if outside else name))
        colours, faulty = class_colours(len(categories)), self.faulty(*_OF_ANNOTATIONS)
        names = [(str(_value(each, "name")), colours[i]) for i, each in enumerate(categories)]
        classes = {_value(each, "id"): name for each, name in zip(categories, names, strict=True)}
        for place, note in enumerate(self.content["annotations"]):
            if isinstance(note, dict) and note.get("image_id") == number and coco.has_id(image):
                text, colour = classes.get(_value(note, "category_id"), ("?", RED))
                if place in faulty:  # a class may be red, too
                    text, colour = f"{text} (faulty)", RED
                _draw(picture, image, note, text, colour)
        return picture, name

    def write_clean(self, folder: Path) -> str:
        path = folder / self.place.ann.name
        if self.content is None:
            raise UserError(f"--fix: {self.place.ann} is no COCO file; there is nothing to clean")
        good = cleaned(self.content, self)
        self.require_some(good["images"])
        path.write_text(json.dumps(good) + "\n")
        kept = (f"{len(good[name])} of {len(self.content[name])} {name}" for name in LISTS)
        return f"{path.name}: {', '.join(kept)}"


def check_set(place: Place, workers: int, fast: bool = False) -> CocoSet:
    """Check an annotation file and the images it lists."""
    found = CocoSet(place)
    found.content, faults = read_coco(place.ann)
    found.add(faults)
    if found.content is None:
        return found
    found.add(coco.file_faults(found.content))
    found.add(coco.unused_faults(found.content))
    found.figures = {name: len(found.content[name]) for name in LISTS}
    _check_pictures(found, found.content["images"], workers, fast)
    found.figures |= _figures(found.content)
    return found


def _check_pictures(found: CocoSet, entries: list[Any], workers: int, fast: bool) -> None:
    """Open every image that an entry names properly, and no file outside the image folder."""
    bad = found.faulty("image-path", "image-keys", "image-file-twice")
    order = [index for index in range(len(entries)) if index not in bad]
    paths = [found.place.images / entries[index]["file_name"] for index in order]
    look = partial(image_faults, fast=fast)
    done = thread_map(look, paths, max_workers=workers, desc=found.place.name, unit="image")
    for index, (size, faults) in zip(order, done, strict=True):
        entry = entries[index]
        if size and size != coco.size_of(entry):
            listed = coco.size_of(entry)
            faults.append(("image-size", f"{listed} in the file, {size} on disk"))
        place = coco.place_of("images", index, entry)
        found.add(Fault(kind, place, message, index) for kind, message in faults)
    found.figures |= size_figures(size for size, _ in done)


def _figures(content: dict[str, Any]) -> dict[str, Any]:
    """Boxes by size, and classes by number."""
    notes = [note for note in content["annotations"] if coco.has_id(note)]
    pairs = [(_value(note, "image_id"), _value(note, "category_id")) for note in notes]
    amounts = Counter(number for _, number in pairs)
    images = Counter(number for _, number in set(pairs))
    boxes = [note["bbox"] for note in notes if not dict(box_faults(note.get("bbox"), None))]
    sides = np.sqrt([box[2] * box[3] for box in boxes])
    # as COCO has them, by area
    counts = np.histogram(sides, (0, 32, 96, np.inf))[0].tolist()
    found: dict[str, Any] = {"boxes": dict(zip(("small", "medium", "large"), counts, strict=True))}
    found["classes"] = [
        {"name": str(each.get("name")), "instances": amounts[number], "images": images[number]}
        for each in content["categories"]
        if (number := _value(each, "id")) is not None
    ]
    return found


def _draw(picture: Array, image: Any, note: dict[str, Any], text: str, colour: Colour) -> None:
    """Draw what can be drawn of an annotation on a picture of its image."""
    size = coco.size_of(image)
    mask, box = note.get("segmentation"), note.get("bbox") or []
    if size is None:
        return
    if not dict(mask_faults(mask, size)):
        reader = COCO()
        reader.imgs = {note["image_id"]: image}
        inside = cv2.resize(reader.annToMask(note), picture.shape[1::-1])
        paint_mask(picture, inside.astype(bool), colour)
    if not {kind for kind, _ in box_faults(box, None)} - {"box-tiny"}:
        left, top, width, height = box
        scale = np.array(picture.shape[1::-1]) / size
        ends = np.array([left, top, left + width, top + height]) * [*scale, *scale]
        paint_box(picture, ends.tolist(), colour, text)


def _value(entry: Any, key: str) -> Any:
    """A plain value of an entry, or None: entries may be anything."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int | str) else None
