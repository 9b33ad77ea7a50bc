"""Of the faults of an annotation file, those that stop a training; quick on large good files."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmdet_agent.data import coco
from mmengine_agent.data.faults import KINDS, Fault

_FAR = 5  # times the image's longer side: pycocotools walks along a polygon pixel by pixel
_MANY = 100_000  # annotations, from which on a bar shows that something is done
_SHOWN = 3
_NUMBERS = {int, float}  # and not bool
_REASONS = {  # why a fault stops a training that otherwise does not
    "mask-missing": ", and the model learns from masks",
    "polygon-outside": f": a corner is more than {_FAR - 1} images away",
}


def stopping_faults(content: dict[str, Any], masks: bool, evaluated: bool) -> Iterator[Fault]:
    """The faults of a file that stop a training or an evaluation.

    Args:
        content: of the file.
        masks: whether the model learns from masks.
        evaluated: whether pycocotools evaluates with the file, which asks for more.
    """
    entries = coco.category_faults(content["categories"]), coco.image_faults(content["images"])
    yield from (each for each in chain(*entries) if KINDS[each.kind].stops_training)
    context, notes = coco.Context.of(content), content["annotations"]
    bar = tqdm(notes, "annotations", unit="", disable=len(notes) < _MANY or None)  # on a terminal
    for index, note in enumerate(bar):
        if is_plain(note, context):
            context.ids.add(note["id"])
            continue
        with np.errstate(all="ignore"):  # of areas of numbers that are far too large
            found = list(coco.annotation_faults(index, note, context))
        for fault in found:
            if _stops(fault.kind, note, context, masks, evaluated):
                yield replace(fault, message=fault.message + _REASONS.get(fault.kind, ""))


def is_plain(note: Any, context: coco.Context) -> bool:
    """Whether an annotation has nothing that stops a training; if in doubt, no.

    Most annotations are of this kind, and the checks that describe faults take ten times as long.
    """
    try:
        number, image, box, mask = (note[key] for key in ("id", "image_id", "bbox", "segmentation"))
        whole = (number, image, note["category_id"], note["iscrowd"])
        size = context.sizes[image]
        return (
            all(type(each) is int for each in whole)
            and number not in context.ids
            and note["iscrowd"] in (0, 1)
            and type(box) is list
            and len(box) == 4
            and _are_finite((*box, note["area"]))
            and type(mask) is list
            and size is not None
            and all(_is_near(polygon, _FAR * max(size)) for polygon in mask)
            and len(mask) > 0
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def describe(path: Path, faults: list[Fault]) -> str:
    """What is wrong with a file, with the first faults of it."""
    lines = [
        f"   {fault.place}: {fault.message} ({KINDS[fault.kind].what})" for fault in faults[:_SHOWN]
    ]
    more = [f"   and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    hint = "   `python tools/prepare_data.py check` lists all; with --fix it writes a cleaned copy"
    return "\n".join([f"{path} cannot be used:", *lines, *more, hint])


def _stops(kind: str, note: Any, context: coco.Context, masks: bool, evaluated: bool) -> bool:
    """Whether a fault of an annotation stops a training or an evaluation."""
    if kind == "iscrowd":  # mmdet takes 0 if there is none, pycocotools does not
        return evaluated or "iscrowd" in note
    if kind == "mask-missing":
        return masks and not note.get("ignore")
    if kind in ("polygon-length", "polygon-outside"):  # mmdet drops lists that are too short
        size = context.sizes.get(note["image_id"])
        far = _FAR * max(size) if size else math.inf
        return any(_is_far(polygon, far) for polygon in note["segmentation"])
    return KINDS[kind].stops_training


def _is_far(polygon: Any, far: float) -> bool:
    """Whether a polygon is no list, or has a corner that is far away."""
    if not isinstance(polygon, list):
        return True
    return any(isinstance(value, int | float) and not abs(value) <= far for value in polygon)


def _are_finite(values: Sequence[Any]) -> bool:
    return _NUMBERS.issuperset(map(type, values)) and math.isfinite(sum(values))


def _is_near(polygon: Any, far: float) -> bool:
    return (
        type(polygon) is list
        and _are_finite(polygon)
        and -far <= min(polygon) <= max(polygon) <= far
    )
