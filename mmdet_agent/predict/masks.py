"""Masks as COCO run-length codes, of a tile and of its image."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mmengine_agent.predict.tiles import Tile


def encode(mask: np.ndarray) -> Any:
    """The code of a mask (H, W)."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def place(code: Any, tile: Tile, shape: tuple[int, int]) -> Any:
    """The code of an image (H, W) from the code of one tile of it.

    Only the ends of runs are computed, down the columns as COCO counts, so no array of the image's
    size is made.
    """
    height, width = shape
    if (tile.height, tile.width) == shape:
        return code
    mask = np.pad(coco_mask.decode(code).T.astype(np.int8), ((0, 0), (1, 1)))  # (w, h + 2)
    change = np.diff(mask, axis=1)
    columns, begins = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    first = (tile.x + columns) * height + tile.y  # of each run's column, in the image
    edges: np.ndarray = np.stack([first + begins, first + ends], axis=1).ravel()
    meet = np.flatnonzero(edges[1:-1:2] == edges[2::2])  # a run to the bottom, and one at the top
    edges = np.delete(edges, np.concatenate([2 * meet + 1, 2 * meet + 2]))
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    if not counts[-1]:  # the last run ends with the image
        counts.pop()
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
