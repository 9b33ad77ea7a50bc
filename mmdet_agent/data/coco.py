"""A COCO annotation file: entries that cannot be right, whatever the images hold.

Every check is a generator of ``Fault`` over plain lists and dicts. The tool's check and the one
before a training run the same.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from mmdet_agent.data.shapes import (
    are_numbers,
    area_faults,
    bounds,
    box_faults,
    is_whole,
    mask_faults,
    overlap,
)
from mmengine_agent.data.faults import Fault
from mmengine_agent.data.images import Size

_MANY = 100_000  # annotations, from which on a bar shows that something is done
# by list of a file: the word in kinds of faults, the key of names, the keys of whole numbers
_LISTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "images": ("image", "file_name", ("id", "width", "height")),
    "categories": ("category", "name", ("id",)),
    "annotations": ("annotation", "", ("id", "image_id", "category_id")),
}


@dataclass
class Context:
    """What annotations refer to, and what they share.

    Attributes:
        sizes: (width, height) by image id; None if the entry does not say.
        categories: ids of categories.
        ids: annotation ids seen so far.
        boxes: hashes of (image, category, box) seen so far.
    """

    sizes: dict[int, Size | None]
    categories: set[int]
    ids: set[int] = field(default_factory=set)
    boxes: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Context":
        """The context of a file's annotations; broken entries are known by id, if they have one."""
        images = [each for each in content["images"] if has_id(each)]
        sizes = {each["id"]: size_of(each) for each in reversed(images)}  # the first of each id
        return cls(sizes, {each["id"] for each in content["categories"] if has_id(each)})


def file_faults(content: dict[str, Any]) -> Iterator[Fault]:
    """What is wrong with the entries of a file, images, categories and annotations."""
    yield from entry_faults("images", content["images"])
    yield from entry_faults("categories", content["categories"])
    context, notes = Context.of(content), content["annotations"]
    bar = tqdm(notes, "annotations", unit="", disable=len(notes) < _MANY or None)  # on a terminal
    for index, note in enumerate(bar):
        for kind, message in annotation_faults(note, context):
            yield Fault(kind, place_of("annotations", index, note), message, index)


def entry_faults(part: str, entries: list[Any]) -> Iterator[Fault]:
    """What is wrong with the ``part`` images or categories, by themselves."""
    word, key, _ = _LISTS[part]
    firsts: dict[Any, str] = {}  # places by name and by id
    for index, entry in enumerate(entries):
        place = place_of(part, index, entry)
        wrong = _wrong_keys(part, entry)
        if wrong:
            yield Fault(f"{word}-keys", place, wrong, index)
            continue
        number, name = entry["id"], name_of(entry, key)
        if part == "images" and (os.path.isabs(name) or name.split(os.sep)[0] == ".."):
            yield Fault("image-path", place, f"file_name is {entry['file_name']}", index)
        if firsts.setdefault(name, place) != place:
            kind = "image-file-twice" if part == "images" else "category-name-twice"
            yield Fault(kind, place, f"{name} is also {firsts[name]}", index)
        elif firsts.setdefault(number, place) != place:
            yield Fault(f"{word}-id-twice", place, f"{number} is also {firsts[number]}", index)


def annotation_faults(note: Any, context: Context) -> Iterator[tuple[str, str]]:
    """(kind, message) of what is wrong with an annotation, which is added to the context."""
    wrong = _wrong_keys("annotations", note) or ("" if "bbox" in note else "no bbox")
    if wrong:
        yield "annotation-keys", wrong
        return
    yield from _references(note, context)
    size, box, mask = context.sizes.get(note["image_id"]), note["bbox"], note.get("segmentation")
    if "iscrowd" not in note:
        yield "iscrowd-missing", "no iscrowd"
    elif not is_whole(note["iscrowd"]) or note["iscrowd"] not in (0, 1):
        yield "iscrowd", f"iscrowd is {str(note['iscrowd'])[:60]}"
    yield from area_faults(note)
    faults = [*box_faults(box, size)]
    if mask or not note.get("ignore"):  # mmdet leaves out what is to be ignored
        faults += mask_faults(mask, size)
    yield from faults
    if not faults and mask and isinstance(mask, list) and overlap(box, bounds(mask)) < 0.5:
        yield "box-off-mask", f"bbox {box}, mask {[round(x, 1) for x in bounds(mask)]}"


def unused_faults(content: dict[str, Any]) -> Iterator[Fault]:
    """Images and categories that no annotation is of."""
    notes = [note for note in content["annotations"] if isinstance(note, dict)]
    for part, key, kind in (
        ("images", "image_id", "image-bare"),
        ("categories", "category_id", "category-unused"),
    ):
        used = {note.get(key) for note in notes if is_whole(note.get(key))}
        for index, entry in enumerate(content[part]):
            if has_id(entry) and entry["id"] not in used:
                yield Fault(kind, place_of(part, index, entry), "no annotations", index)


def place_of(part: str, index: int, entry: Any) -> str:
    """Where an entry is, for people."""
    entry = entry if isinstance(entry, dict) else {}
    if part == "annotations":
        return f"annotations[{index}] (id {entry.get('id')}, image {entry.get('image_id')})"
    return f"{part}[{index}] {entry.get(_LISTS[part][1]) or ''}".strip()


def name_of(entry: dict[str, Any], key: str) -> str:
    """The name of an image, in one spelling, or of a category."""
    name = str(entry.get(key))
    return os.path.normpath(name) if key == "file_name" else name


def has_id(entry: Any) -> bool:
    """Whether an entry of a list is an object with a whole number for its id."""
    return isinstance(entry, dict) and is_whole(entry.get("id"))


def size_of(entry: dict[str, Any]) -> Size | None:
    """(width, height) of an image, as its entry says; None if it does not."""
    width, height = entry.get("width"), entry.get("height")
    if is_whole(width) and is_whole(height) and min(width, height) > 0:
        return width, height
    return None


def _references(note: dict[str, Any], context: Context) -> Iterator[tuple[str, str]]:
    if note["id"] in context.ids:
        yield "annotation-id-twice", f"id {note['id']} again"
    context.ids.add(note["id"])
    if note["image_id"] not in context.sizes:
        yield "annotation-image", f"there is no image {note['image_id']}"
    if note["category_id"] not in context.categories:
        yield "annotation-category", f"there is no category {note['category_id']}"
    box = note["bbox"]
    if isinstance(box, list) and are_numbers(box):
        seen = hash((note["image_id"], note["category_id"], *box))
        if seen in context.boxes:
            yield "annotation-twice", f"bbox {box} again"
        context.boxes.add(seen)


def _wrong_keys(part: str, entry: Any) -> str:
    """What is wrong with the keys of an entry, or ''."""
    _, text, numbers = _LISTS[part]
    if not isinstance(entry, dict):
        return f"it is {type(entry).__name__}, not an object"
    for key in numbers:
        if not is_whole(entry.get(key)):
            return f"{key} is {str(entry.get(key, 'missing'))[:60]}, not a whole number"
    if text and (not isinstance(entry.get(text), str) or not entry[text]):
        return f"{text} is {str(entry.get(text, 'missing'))[:60]}, not a text"
    if part == "images" and not size_of(entry):
        return f"width and height are {entry['width']} and {entry['height']}"
    return ""
