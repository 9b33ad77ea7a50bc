"""The objects of an image: what a detector says of a tile, and COCO results. Masks are run-length
codes, so that none of the image's size is made.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from mmengine_agent.errors import UserError
from mmengine_agent.predict.sliding_window import Tile

Box = tuple[float, float, float, float]  # x1, y1, x2, y2


class Mask(NamedTuple):
    """The part of an image's mask that has the object."""

    top: int
    left: int
    code: Any  # COCO's run-length code of the part

    def decode(self) -> tuple[tuple[slice, slice], np.ndarray]:
        """Index of the part's pixels in an image (H, W, ...), and the mask there."""
        height, width = self.code["size"]
        area = slice(self.top, self.top + height), slice(self.left, self.left + width)
        return area, coco_mask.decode(self.code).astype(bool)


class Instance(NamedTuple):
    """An object."""

    box: Box  # in pixels of the image
    score: float
    label: int
    tile: Tile  # where it was found
    mask: Mask | None = None


def instances_of(sample: Any, tile: Tile, threshold: float) -> Iterator[Instance]:
    """What a model's data sample of a tile says, from a score on.

    Raises:
        UserError: if it says nothing of objects.
    """
    if "pred_instances" not in sample:
        raise UserError("the model predicts no instances: it is no detector")
    found = sample.pred_instances
    found = found[found.scores >= threshold].cpu()
    top, left = tile.rows.start, tile.columns.start
    masks = found.masks if "masks" in found else [None] * len(found.scores)
    columns = (found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist(), masks)
    for (x1, y1, x2, y2), score, label, mask in zip(*columns, strict=True):
        box = (x1 + left, y1 + top, x2 + left, y2 + top)
        if isinstance(mask, Mask):  # of the tile
            mask = mask._replace(top=mask.top + top, left=mask.left + left)
        elif mask is not None:
            mask = crop(np.asarray(mask), top, left)
        yield Instance(box, score, label, tile, mask)


def coco_result(
    each: Instance, shape: tuple[int, int], image_id: int, category_ids: tuple[int, ...]
) -> dict[str, Any]:
    """The COCO result of an object in an image of ``shape`` (H, W)."""
    x1, y1, x2, y2 = each.box
    result = {
        "image_id": image_id,
        "category_id": category_ids[each.label],
        "bbox": [round(number, 2) for number in (x1, y1, x2 - x1, y2 - y1)],
        "score": round(each.score, 5),
    }
    if each.mask is not None:
        code = code_of_image(each.mask, shape)
        result["segmentation"] = {**code, "counts": code["counts"].decode()}
    return result


def encode(mask: np.ndarray) -> Any:
    """The code of a mask (H, W)."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def crop(mask: np.ndarray, top: int, left: int) -> Mask:
    """What there is in a mask (H, W) whose corner has that place in the image."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    (y, bottom), (x, right) = ((at[0], at[-1] + 1) if len(at) else (0, 1) for at in (rows, columns))
    return Mask(int(top + y), int(left + x), encode(mask[y:bottom, x:right]))


def code_of_image(mask: Mask, shape: tuple[int, int]) -> Any:
    """The code of a mask in an image (H, W).

    Runs are counted down the columns, as COCO does, and only columns of the object are looked at.
    """
    height, width = shape
    (rows, columns), part = mask.decode()
    strip = np.zeros((part.shape[1], height), np.int8)  # the object's columns, one after another
    strip[:, rows] = part.T
    ends = np.flatnonzero(np.diff(strip.ravel(), prepend=0, append=0)) + columns.start * height
    counts = np.diff(ends, prepend=0, append=height * width).tolist()
    if not counts[-1]:  # the last run ends with the image
        counts.pop()
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
