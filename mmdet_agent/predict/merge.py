"""Objects of an image from what was found in its overlapping tiles.

Tiles that overlap show some objects twice, and cut some. An object smaller than the overlap is
whole in some tile, and comes from there. A larger one is joined from its pieces, if their boxes
agree within the rectangle that two tiles share. What one tile shows, and tiles that do not overlap,
is left as it is.
"""

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from mmdet_agent.predict.instances import Instance, Mask, crop

_SAME = 0.5  # overlap from which boxes are of one object
_MODES = ("iof", "iou")  # intersection over a piece, and over the union
_NEAR = 0.01  # of a tile's side: how far from the border a box may end that the border cut


def merge(found: list[Instance], shape: tuple[int, int]) -> list[Instance]:
    """The objects of an image (H, W)."""
    boxes = torch.tensor([each.box for each in found]).reshape(-1, 4)
    corners = [
        (columns.start, rows.start, columns.end, rows.end)
        for rows, columns in (each.tile for each in found)
    ]
    tiles = torch.tensor(corners).reshape(-1, 4)
    near = (_NEAR * (tiles[:, 2:] - tiles[:, :2])).clamp(min=2).repeat(1, 2)
    inside = tiles != torch.tensor([0, 0, shape[1], shape[0]])  # borders beyond which it goes on
    cut = (inside & ((boxes - tiles).abs() < near)).any(1)

    labels = torch.tensor([each.label for each in found])
    free = torch.ones(len(found), dtype=torch.bool)  # not yet part of an object
    objects = []
    # whole ones first, the surest first
    for i in sorted(range(len(found)), key=lambda i: (bool(cut[i]), -found[i].score)):
        if not free[i]:
            continue
        free[i] = False
        group = [i]
        for j in group:  # which grows
            rivals = (free & (labels == labels[j]) & (tiles != tiles[j]).any(1)).nonzero()[:, 0]
            if cut[i]:
                same = rivals[_agree(boxes[j], tiles[j], boxes[rivals], tiles[rivals])]
                group += same.tolist()
            else:  # it stands for those in its place, and for pieces within it
                whole = boxes[i : i + 1]
                iof, iou = (bbox_overlaps(boxes[rivals], whole, mode)[:, 0] for mode in _MODES)
                same = rivals[torch.where(cut[rivals], iof, iou) > _SAME]
            free[same] = False
        objects.append(_join([found[j] for j in group]))
    return objects


def _agree(box: Tensor, tile: Tensor, boxes: Tensor, tiles: Tensor) -> Tensor:
    """Which of some boxes (n, 4) agree with one (4,) in what their tiles share, bool (n,)."""
    shared = _intersect(tile, tiles)
    one, other = _intersect(box, shared), _intersect(boxes, shared)
    seen = (one[:, 2:] > one[:, :2]).all(1) & (other[:, 2:] > other[:, :2]).all(1)
    return seen & (bbox_overlaps(one, other, is_aligned=True) > _SAME)


def _intersect(one: Tensor, other: Tensor) -> Tensor:
    """The rectangles (n, 4) that two sets have in common; of negative sides if none."""
    low, high = torch.maximum(one, other), torch.minimum(one, other)
    return torch.cat([low[..., :2], high[..., 2:]], -1)


def _join(pieces: list[Instance]) -> Instance:
    """One object of its pieces, the surest first: all their area."""
    if len(pieces) == 1:
        return pieces[0]
    x1, y1, x2, y2 = zip(*(each.box for each in pieces), strict=True)
    box = (min(x1), min(y1), max(x2), max(y2))
    return pieces[0]._replace(box=box, mask=_unite([each.mask for each in pieces if each.mask]))


def _unite(masks: list[Mask]) -> Mask | None:
    if not masks:
        return None
    parts = [(mask.top, mask.left, mask.decode()[1]) for mask in masks]
    top, left = min(mask.top for mask in masks), min(mask.left for mask in masks)
    bottom = max(y + part.shape[0] for y, _, part in parts)
    right = max(x + part.shape[1] for _, x, part in parts)
    whole = np.zeros((bottom - top, right - left), bool)
    for y, x, part in parts:
        place = whole[y - top :, x - left :]
        place[: part.shape[0], : part.shape[1]] |= part
    return crop(whole, top, left)
