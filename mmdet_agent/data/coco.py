"""A COCO annotation file: entries that cannot be right, whatever the images hold.

Every check is a generator of ``Fault`` over plain lists and dicts, so that it can be read, tested
and run on half a file. ``check.py`` runs them all.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mmdet_agent.data.boxes import Size, area_faults, box_faults, is_number, is_whole, overlap
from mmdet_agent.data.masks import bounds, mask_faults
from mmengine_agent.data.faults import Fault
from mmengine_agent.data.images import Probe


@dataclass
class Context:
    """What annotations refer to, and what they share.

    Attributes:
        sizes: (width, height) by image id; None if the entry does not say.
        categories: ids of categories.
        ids: annotation ids seen so far.
        boxes: hashes of (image, category, box) seen so far.
    """

    sizes: dict[Any, Size | None] = field(default_factory=dict)
    categories: set[Any] = field(default_factory=set)
    ids: set[int] = field(default_factory=set)
    boxes: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Context":
        """The context of a file's annotations; broken entries are known by id, if they have one."""
        found = cls()
        for entry in filter(has_id, content["images"]):
            found.sizes.setdefault(entry["id"], _size(entry))
        found.categories = {entry["id"] for entry in content["categories"] if has_id(entry)}
        return found


def image_faults(entries: list[Any]) -> Iterator[Fault]:
    """What is wrong with image entries, by themselves."""
    ids: dict[int, int] = {}
    files: dict[str, int] = {}
    for index, entry in enumerate(entries):
        place = image_place(entries, index)
        wrong = _wrong_keys(entry, ("id", "width", "height"), "file_name", above_zero=True)
        if wrong:
            yield Fault("image-keys", place, wrong, index)
            continue
        name = os.path.normpath(entry["file_name"])
        if os.path.isabs(name) or name.split(os.sep)[0] == "..":
            yield Fault("image-path", place, f"file_name is {entry['file_name']}", index)
        if ids.setdefault(entry["id"], index) != index:
            first = f"id {entry['id']} is that of {image_place(entries, ids[entry['id']])}"
            yield Fault("image-id-twice", place, first, index)
        elif files.setdefault(name, index) != index:
            first = f"also {image_place(entries, files[name])}"
            yield Fault("image-file-twice", place, first, index)


def category_faults(entries: list[Any]) -> Iterator[Fault]:
    """What is wrong with category entries, by themselves."""
    ids: set[int] = set()
    names: set[str] = set()
    for index, entry in enumerate(entries):
        place = f"categories[{index}]"
        wrong = _wrong_keys(entry, ("id",), "name")
        if wrong:
            yield Fault("category-keys", place, wrong, index)
            continue
        if entry["id"] in ids:
            yield Fault("category-id-twice", place, f"id {entry['id']} again", index)
        elif entry["name"] in names:
            yield Fault("category-name-twice", place, f"name {entry['name']} again", index)
        ids.add(entry["id"])
        names.add(entry["name"])


def annotation_faults(index: int, note: Any, context: Context) -> Iterator[Fault]:
    """What is wrong with one annotation, which is added to the context."""
    place = annotation_place(index, note)
    wrong = _wrong_keys(note, ("id", "image_id", "category_id"), None)
    if not wrong and "bbox" not in note:
        wrong = "no bbox"
    if wrong:
        yield Fault("annotation-keys", place, wrong, index)
        return
    size = context.sizes.get(note["image_id"])
    for check in (_references(note, context), _contents(note, size)):
        for kind, message in check:
            yield Fault(kind, place, message, index)


def unused_faults(content: dict[str, Any], images: set[Any], classes: set[Any]) -> Iterator[Fault]:
    """Images and categories that no annotation is of, given the ids that some are of."""
    for index, entry in enumerate(content["images"]):
        if has_id(entry) and entry["id"] not in images:
            place = image_place(content["images"], index)
            yield Fault("image-bare", place, "no annotations", index)
    for index, entry in enumerate(content["categories"]):
        if has_id(entry) and entry["id"] not in classes:
            message = f"no annotation of {entry.get('name')}"
            yield Fault("category-unused", f"categories[{index}]", message, index)


def picture_faults(entries: list[Any], index: int, probe: Probe) -> Iterator[Fault]:
    """What is wrong with an image's file, and between it and its entry."""
    place, size = image_place(entries, index), _size(entries[index])
    if probe.error:
        yield Fault(f"image-{probe.error}", place, probe.message, index)
    if probe.size and size and probe.size != size:
        turned = f", turned as EXIF asks ({probe.orientation})" if probe.orientation >= 5 else ""
        listed, found = (f"{width} x {height}" for width, height in (size, probe.size))
        yield Fault("image-size", place, f"{listed} in the file, {found} on disk{turned}", index)
    if probe.size and probe.orientation != 1:
        yield Fault("image-rotated", place, f"EXIF orientation {probe.orientation}", index)


def image_place(entries: list[Any], index: int) -> str:
    """Where an image entry is, for people."""
    entry = entries[index]
    name = entry.get("file_name") if isinstance(entry, dict) else None
    return f"images[{index}]" + (f" {name}" if name else "")


def annotation_place(index: int, note: Any) -> str:
    """Where an annotation is, for people."""
    if not isinstance(note, dict):
        return f"annotations[{index}]"
    return f"annotations[{index}] (id {note.get('id')}, image {note.get('image_id')})"


def _references(note: dict[str, Any], context: Context) -> Iterator[tuple[str, str]]:
    if note["id"] in context.ids:
        yield "annotation-id-twice", f"id {note['id']} again"
    context.ids.add(note["id"])
    if note["image_id"] not in context.sizes:
        yield "annotation-image", f"there is no image {note['image_id']}"
    if note["category_id"] not in context.categories:
        yield "annotation-category", f"there is no category {note['category_id']}"
    box = note["bbox"]
    if isinstance(box, list) and all(map(is_number, box)):
        seen = hash((note["image_id"], note["category_id"], *box))
        if seen in context.boxes:
            yield "annotation-twice", f"bbox {box} again"
        context.boxes.add(seen)


def _contents(note: dict[str, Any], size: Size | None) -> Iterator[tuple[str, str]]:
    if not is_whole(note.get("iscrowd")) or note["iscrowd"] not in (0, 1):
        yield "iscrowd", f"iscrowd is {str(note.get('iscrowd', 'missing'))[:60]}"
    yield from area_faults(note)
    faults = [*box_faults(note["bbox"], size), *mask_faults(note.get("segmentation"), size)]
    yield from faults
    mask = note.get("segmentation")
    if not faults and isinstance(mask, list) and (around := bounds(mask)):
        share = overlap(note["bbox"], around)
        if share < 0.5:
            yield "box-off-mask", f"bbox {note['bbox']}, mask {[round(x, 1) for x in around]}"


def _wrong_keys(
    entry: Any, numbers: Iterable[str], text: str | None, above_zero: bool = False
) -> str:
    """What is wrong with the keys of an entry, or ''."""
    if not isinstance(entry, dict):
        return f"it is {type(entry).__name__}, not an object"
    for key in numbers:
        if not is_whole(entry.get(key)):
            return f"{key} is {str(entry.get(key, 'missing'))[:60]}, not a whole number"
        if above_zero and key != "id" and entry[key] <= 0:
            return f"{key} is {entry[key]}"
    if text and (not isinstance(entry.get(text), str) or not entry[text]):
        return f"{text} is {str(entry.get(text, 'missing'))[:60]}, not a text"
    return ""


def has_id(entry: Any) -> bool:
    """Whether an entry of a list is an object with a whole number for its id."""
    return isinstance(entry, dict) and is_whole(entry.get("id"))


def _size(entry: Any) -> Size | None:
    if not isinstance(entry, dict):
        return None
    width, height = entry.get("width"), entry.get("height")
    if is_whole(width) and is_whole(height) and width > 0 and height > 0:
        return width, height
    return None
