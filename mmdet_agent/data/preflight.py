"""COCO annotation files: of the faults that ``prepare`` finds, those that training cannot bear."""

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmdet_agent.data import coco
from mmengine_agent.data.faults import KINDS, Fault

# mmdet and pycocotools fail at these, or train on something else than what is meant
STOPS = {
    "json-syntax",
    "json-layout",
    "set-empty",
    "image-keys",
    "image-id-twice",
    "category-keys",
    "category-id-twice",
    "category-name-twice",
    "annotation-keys",
    "annotation-id-twice",
    "box-length",
    "box-number",
    "area-missing",
    "area-type",
    "mask-type",
    "polygon-number",
    "rle-size",
    "rle-counts",
}
_FAR = 4  # times the image's sides: pycocotools walks along a polygon pixel by pixel
_MANY = 100_000  # annotations, from which on a bar shows that something is done
_SHOWN = 3
_NUMBERS = {int, float}  # and not bool


def read(path: Path) -> tuple[dict[str, Any] | None, list[Fault]]:
    """The content of a file, and what is wrong with it as a whole."""
    try:
        with _no_collection():
            return coco.read_json(path)
    except OSError as error:
        return None, [Fault("json-syntax", str(path), str(error.strerror))]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python looks for garbage again and again while millions of objects are made: a third more."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def faults_of(content: dict[str, Any], masks: bool, evaluated: bool) -> Iterator[Fault]:
    """The faults of a file that training or evaluation cannot bear.

    Args:
        content: of the file.
        masks: whether the model learns from masks.
        evaluated: whether pycocotools evaluates with the file, which asks for more.
    """
    yield from coco.category_faults(content["categories"])
    yield from coco.image_faults(content["images"])
    context, notes = coco.Context.of(content), content["annotations"]
    bar = tqdm(notes, "annotations", unit="", disable=len(notes) < _MANY or None)  # on a terminal
    for index, note in enumerate(bar):
        if is_plain(note, context):
            context.ids.add(note["id"])
        else:
            yield from _note_faults(index, note, context, masks, evaluated)


def is_plain(note: Any, context: coco.Context) -> bool:
    """Whether an annotation is of the usual kind, and right; in doubt not.

    Most are, and the checks that find words for what is wrong take ten times as long.
    """
    try:
        number, image, box, mask = (note[key] for key in ("id", "image_id", "bbox", "segmentation"))
        whole = (number, image, note["category_id"], note["iscrowd"])
        values = (*box, note["area"])
        size = context.sizes[image]
        return (
            all(type(each) is int for each in whole)
            and number not in context.ids
            and note["iscrowd"] in (0, 1)
            and type(box) is list
            and len(box) == 4
            and _finite(values)
            and type(mask) is list
            and size is not None
            and all(_is_near(polygon, (_FAR + 1) * max(size)) for polygon in mask)
            and len(mask) > 0
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _finite(values: Any) -> bool:
    return _NUMBERS.issuperset(map(type, values)) and math.isfinite(sum(values))


def _is_near(polygon: Any, far: int) -> bool:
    return (
        type(polygon) is list and _finite(polygon) and -far <= min(polygon) <= max(polygon) <= far
    )


def _note_faults(
    index: int, note: Any, context: coco.Context, masks: bool, evaluated: bool
) -> Iterator[Fault]:
    with np.errstate(all="ignore"):  # of areas of numbers that are far too large
        found = list(coco.annotation_faults(index, note, context))
    yield from (fault for fault in found if _stops(fault, note, evaluated))
    if isinstance(note, dict):
        place = coco.annotation_place(index, note)
        yield from _mask_faults(note, context.sizes.get(_hashable(note)), place, masks)


def in_words(path: Path, faults: list[Fault]) -> str:
    """What is wrong with a file, with the first faults of it."""
    told = [
        f"   {fault.place}: {fault.message} ({KINDS[fault.kind].what})" for fault in faults[:_SHOWN]
    ]
    more = [f"   and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    hint = "   `python tools/prepare_data.py check` lists all; with --fix it writes a cleaned copy"
    return "\n".join([f"{path} cannot be used:", *told, *more, hint])


def _stops(fault: Fault, note: dict[str, Any], evaluated: bool) -> bool:
    if fault.kind == "iscrowd":
        return evaluated or "iscrowd" in note
    return fault.kind in STOPS


def _mask_faults(note: dict[str, Any], size: Any, place: str, masks: bool) -> Iterator[Fault]:
    """What ``prepare`` tolerates, and decoding does not."""
    mask = note.get("segmentation")
    if masks and not mask and not note.get("ignore"):
        yield Fault("mask-missing", place, "no segmentation, and the model learns from masks")
    if not isinstance(mask, list):
        return
    for polygon in mask:
        if not isinstance(polygon, list):
            yield Fault("polygon-length", place, f"a polygon is a {type(polygon).__name__}")
        elif size and any(_far(value, max(size)) for value in polygon):
            yield Fault("polygon-outside", place, f"a corner is more than {_FAR} images away")


def _far(value: Any, side: int) -> bool:
    return isinstance(value, int | float) and not abs(value) <= _FAR * side + side


def _hashable(note: dict[str, Any]) -> Any:
    number = note.get("image_id")
    return number if coco.is_whole(number) else None
