"""Checking a COCO-like set: lists, then images in threads."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tqdm import tqdm

from mmdet_agent.data import coco
from mmdet_agent.data.boxes import is_number, is_whole
from mmdet_agent.data.clean import write_coco
from mmdet_agent.data.read import LISTS, read_coco
from mmdet_agent.data.sheet import coco_tiles
from mmengine_agent.data.check import CheckedSet, Figures, Place
from mmengine_agent.data.images import map_in_threads, probe


@dataclass
class CocoSet(CheckedSet):
    """A COCO-like set that was checked."""

    counts_boxes: ClassVar[bool] = True
    content: dict[str, Any] | None = None

    def tiles(self) -> list[np.ndarray]:
        return coco_tiles(self.place, self.content, self.findings)

    def write_clean(self, folder: Path) -> str:
        return write_coco(self.place, self.content, self.findings, folder)


def check_coco(place: Place, workers: int, fast: bool = False) -> CocoSet:
    """Check an annotation file and the images it lists."""
    found = CocoSet(place)
    found.content, faults = read_coco(place.ann)
    found.findings.add(faults)
    if found.content is None:
        return found
    found.findings.add(coco.image_faults(found.content["images"]))
    found.findings.add(coco.category_faults(found.content["categories"]))
    _check_annotations(found, found.content)
    _check_pictures(found, found.content["images"], workers, fast)
    found.figures.entries = {name: len(found.content[name]) for name in LISTS}
    return found


def _check_annotations(found: CocoSet, content: dict[str, Any]) -> None:
    context = coco.Context.of(content)
    seen: set[tuple[Any, Any]] = set()  # (image, category)
    notes = content["annotations"]
    for index, note in enumerate(tqdm(notes, desc=f"{found.place.name} annotations", unit="")):
        found.findings.add(coco.annotation_faults(index, note, context))
        if isinstance(note, dict) and is_whole(note.get("category_id")):
            image = note.get("image_id")
            if is_whole(image):
                seen.add((image, note["category_id"]))
            found.figures.amounts[note["category_id"]] += 1
            found.figures.boxes.extend(_side(note.get("bbox")))
    images, classes = {image for image, _ in seen}, {number for _, number in seen}
    found.findings.add(coco.unused_faults(content, images, classes))
    _name_classes(found.figures, content["categories"], Counter(number for _, number in seen))


def _name_classes(figures: Figures, categories: list[Any], images: Counter[Any]) -> None:
    """Counts by category id become counts by name, in the file's order."""
    by_id: Counter[Any] = figures.amounts
    figures.amounts = Counter()
    for entry in categories:
        number = entry.get("id") if isinstance(entry, dict) else None
        if is_whole(number):
            name = str(entry.get("name"))
            figures.amounts[name] += by_id[number]
            figures.images[name] += images[number]


def _side(box: Any) -> Iterator[float]:
    """The square root of a box's area, if it has one."""
    if isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and min(box[2:]) > 0:
        yield (box[2] * box[3]) ** 0.5


def _check_pictures(found: CocoSet, entries: list[Any], workers: int, fast: bool) -> None:
    """Open every image that an entry names properly, and no file outside the image folder."""
    bad = found.findings.at("image-path", "image-keys", "image-file-twice")
    order = [index for index in range(len(entries)) if index not in bad]
    paths = (found.place.images / entries[index]["file_name"] for index in order)
    probes = map_in_threads(partial(probe, fast=fast), paths, workers)
    bar = tqdm(probes, desc=f"{found.place.name} images", total=len(order), unit="image")
    for index, each in zip(order, bar, strict=True):
        found.findings.add(coco.picture_faults(entries, index, each))
        found.figures.sizes.update([each.size] if each.size else [])
