"""Boxes: [x, y, width, height] in pixels, as COCO has them."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

TOLERANCE = 1.0  # pixels: annotators' tools round, and COCO itself does

Size = tuple[int, int]  # width, height


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number; true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number; true and false are not."""
    # NaN fails the comparison, and so does infinity
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53


def box_faults(box: Any, size: Size | None) -> Iterator[tuple[str, str]]:
    """(kind, message) of each thing wrong with a box in an image of ``size``, None if unknown."""
    if not isinstance(box, list) or len(box) != 4:
        yield "box-length", f"bbox is {_short(box)}"
    elif not all(map(is_number, box)):
        yield "box-number", f"bbox is {_short(box)}"
    elif min(box[2:]) <= 0:
        yield "box-empty", f"bbox is {_short(box)}"
    elif size and beyond((*box[:2], box[0] + box[2], box[1] + box[3]), size):
        yield "box-outside", f"bbox is {_short(box)} in {size[0]} x {size[1]}"
    elif min(box[2:]) < 1:
        yield "box-tiny", f"bbox is {_short(box)}"


def area_faults(note: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, message) of each thing wrong with an annotation's area."""
    if "area" not in note:
        yield "area-missing", "no area"
    elif not is_number(note["area"]):
        yield "area-type", f"area is {_short(note['area'])}"
    elif note["area"] <= 0:
        yield "area-value", f"area is {note['area']}"


def beyond(ends: Sequence[float], size: Size) -> bool:
    """Whether (left, top, right, bottom) lie out of an image, by more than the tolerance."""
    (left, top, right, bottom), (width, height) = ends, size
    return min(left, top) < -TOLERANCE or right > width + TOLERANCE or bottom > height + TOLERANCE


def clip(box: list[float], size: Size) -> list[float]:
    """The part of a box that is in the image; width or height 0 if there is none."""
    left, right = (min(max(x, 0), size[0]) for x in (box[0], box[0] + box[2]))
    top, bottom = (min(max(y, 0), size[1]) for y in (box[1], box[1] + box[3]))
    return [left, top, right - left, bottom - top]


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    whole = one[2] * one[3] + other[2] * other[3] - both
    return both / whole if whole > 0 else 0.0


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
