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


class Instance(NamedTuple):
    """An object."""

    box: Box  # in pixels of the image
    score: float
    label: int
    tile: Tile  # where it was found
    mask: Any = None  # COCO's run-length code, of the tile's size


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
    masks = np.asarray(found.masks) if "masks" in found else [None] * len(found.scores)
    columns = (found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist(), masks)
    for (x1, y1, x2, y2), score, label, mask in zip(*columns, strict=True):
        box = (x1 + left, y1 + top, x2 + left, y2 + top)
        yield Instance(box, score, label, tile, None if mask is None else encode(mask))


def coco_results(
    found: list[Instance], shape: tuple[int, int], image_id: int, category_ids: tuple[int, ...]
) -> list[dict[str, Any]]:
    """COCO results of an image of ``shape`` (H, W), the surest first."""
    results = []
    for each in sorted(found, key=lambda each: -each.score):
        x1, y1, x2, y2 = each.box
        result = {
            "image_id": image_id,
            "category_id": category_ids[each.label],
            "bbox": [round(number, 2) for number in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(each.score, 5),
        }
        if each.mask is not None:
            code = place(each.mask, each.tile, shape)
            result["segmentation"] = {**code, "counts": code["counts"].decode()}
        results.append(result)
    return results


def encode(mask: np.ndarray) -> Any:
    """The code of a mask (H, W)."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def decode(code: Any, tile: Tile) -> tuple[slice, slice, np.ndarray]:
    """Rows and columns of the image that hold the mask of a tile's object, and the mask there."""
    x, y, width, height = coco_mask.toBbox(code).astype(int).tolist()
    mask = coco_mask.decode(code)[y : y + height, x : x + width].astype(bool)
    top, left = tile.rows.start + y, tile.columns.start + x
    return slice(top, top + height), slice(left, left + width), mask


def place(code: Any, tile: Tile, shape: tuple[int, int]) -> Any:
    """The code of an image (H, W) from the code of one tile of it.

    Runs are counted down the columns, as COCO does, and only columns of the object are looked at.
    """
    height, width = shape
    if tile.shape == shape:
        return code
    rows, columns, mask = decode(code, tile)
    strip = np.zeros((mask.shape[1], height), np.int8)  # the object's columns, one after another
    strip[:, rows] = mask.T
    ends = np.flatnonzero(np.diff(strip.ravel(), prepend=0, append=0)) + columns.start * height
    counts = np.diff(ends, prepend=0, append=height * width).tolist()
    if not counts[-1]:  # the last run ends with the image
        counts.pop()
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
