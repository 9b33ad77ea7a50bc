"""Checking a whole set: lists, then files in threads; what was found, and figures of the set."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmengine_agent.data import ade, coco
from mmdet_agent.data.boxes import is_number
from mmengine_agent.data.faults import Findings
from mmengine_agent.data.images import look_at, probe


@dataclass(frozen=True)
class Place:
    """Where a set is: its name, its annotations (a JSON file, or a folder of PNGs), its images."""

    name: str
    ann: Path
    images: Path


@dataclass
class Figures:
    """Counts of a set; lists have an item for each image or box."""

    entries: dict[str, int] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height): images
    amounts: Counter[str] = field(default_factory=Counter)  # by class: instances, or pixels
    images: Counter[str] = field(default_factory=Counter)  # by class: images that have it
    boxes: list[float] = field(default_factory=list)  # square roots of areas, in pixels


@dataclass
class CocoSet:
    """A COCO-like set that was looked at."""

    place: Place
    content: dict[str, Any] | None = None
    findings: Findings = field(default_factory=Findings)
    figures: Figures = field(default_factory=Figures)


@dataclass
class AdeSet:
    """An ADE20K-like set that was looked at."""

    place: Place
    pairs: list[ade.Pair] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    figures: Figures = field(default_factory=Figures)


def check_coco(place: Place, workers: int, fast: bool = False) -> CocoSet:
    """Check an annotation file and the images it lists."""
    found = CocoSet(place)
    found.content, faults = coco.read_json(place.ann)
    found.findings.add(faults)
    if found.content is None:
        return found
    found.findings.add(coco.image_faults(found.content["images"]))
    found.findings.add(coco.category_faults(found.content["categories"]))
    _look_at_annotations(found, found.content)
    _look_at_pictures(found, found.content["images"], workers, fast)
    found.figures.entries = {name: len(found.content[name]) for name in coco.LISTS}
    return found


def check_ade(place: Place, names: list[str], workers: int, fast: bool = False) -> AdeSet:
    """Check a folder of images and one of label maps; ``names`` are of labels 1, 2, ..."""
    found = AdeSet(place)
    found.pairs, faults = ade.find_pairs(place.images, place.ann)
    found.findings.add(faults)
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    look = partial(ade.look_at_pair, classes=len(names), fast=fast)
    looked = look_at(look, found.pairs, workers)
    for each in tqdm(looked, desc=place.name, total=len(found.pairs), unit="pair"):
        found.findings.add(each.faults)
        found.figures.sizes.update([each.size] if each.size else [])
        pixels.update(each.pixels)
        images.update(each.pixels.keys())
    if found.pairs:
        found.findings.add(ade.unused_classes(pixels, names))
    label_names = {0: "(ignore)", **dict(enumerate(names, 1))}
    for number, name in label_names.items():
        found.figures.amounts[name] += pixels[number] + (0 if number else pixels[255])
        found.figures.images[name] += images[number]
    found.figures.entries = {"pairs": len(found.pairs)}
    return found


def _look_at_annotations(found: CocoSet, content: dict[str, Any]) -> None:
    context = coco.Context.of(content)
    seen: set[tuple[Any, Any]] = set()  # (image, category)
    notes = content["annotations"]
    for index, note in enumerate(tqdm(notes, desc=f"{found.place.name} annotations", unit="")):
        found.findings.add(coco.annotation_faults(index, note, context))
        if isinstance(note, dict) and coco.is_whole(note.get("category_id")):
            image = note.get("image_id")
            if coco.is_whole(image):
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
        if coco.is_whole(number):
            name = str(entry.get("name"))
            figures.amounts[name] += by_id[number]
            figures.images[name] += images[number]


def _side(box: Any) -> Iterator[float]:
    """The square root of a box's area, if it has one."""
    if isinstance(box, list) and len(box) == 4 and all(map(is_number, box)) and min(box[2:]) > 0:
        yield (box[2] * box[3]) ** 0.5


def _look_at_pictures(found: CocoSet, entries: list[Any], workers: int, fast: bool) -> None:
    """Open every image that an entry names properly, and no file outside the image folder."""
    bad = found.findings.at("image-path", "image-keys", "image-file-twice")
    order = [index for index in range(len(entries)) if index not in bad]
    paths = (found.place.images / entries[index]["file_name"] for index in order)
    probes = look_at(partial(probe, fast=fast), paths, workers)
    bar = tqdm(probes, desc=f"{found.place.name} images", total=len(order), unit="image")
    for index, each in zip(order, bar, strict=True):
        found.findings.add(coco.picture_faults(entries, index, each))
        found.figures.sizes.update([each.size] if each.size else [])
