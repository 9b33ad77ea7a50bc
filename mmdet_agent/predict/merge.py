"""Objects of an image from what was found in its overlapping tiles.

Tiles that overlap show some objects twice, and cut some. An object smaller than the overlap is
whole in some tile, and comes from there. A larger one is joined from its pieces, if they agree on
what two tiles share. Tiles that do not overlap change nothing of each other.
"""

from typing import NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from torch import Tensor

from mmdet_agent.predict.masks import place
from mmengine_agent.predict.tiles import Axis, Grid, Tile

_SAME = 0.5  # overlap from which boxes of one class in two tiles are of one object
_NEAR = 0.01  # of a tile's side: how far from the border a box may end that the border cut


class Found(NamedTuple):
    """What was found in a tile, in its pixels.

    Instances: bboxes (n, 4) as x1 y1 x2 y2, scores (n,), labels (n,) and, if the model has them,
    masks, a list of n COCO run-length codes of the tile's size.
    """

    tile: Tile
    instances: InstanceData


class _All(NamedTuple):
    """What was found in all tiles, in pixels of the image."""

    boxes: Tensor  # (n, 4)
    scores: Tensor  # (n,)
    labels: Tensor  # (n,)
    tiles: Tensor  # (n,) number of the tile
    cut: Tensor  # (n,) bool: the border to an overlapping tile cut it


def merge(found: list[Found], grid: Grid) -> list[Found]:
    """The objects of the image; a joined one comes with the rectangle of the tiles that show it."""
    every = _collect(found, grid)
    kept = _select(every)
    groups = _group(every, kept & every.cut, torch.tensor([_corners(f.tile) for f in found]))
    for group in groups:
        kept[group] = False
    parts = kept.split([len(f.instances) for f in found])
    single = [Found(f.tile, f.instances[keep]) for f, keep in zip(found, parts, strict=True)]
    return [*single, *(_join(found, every, group) for group in groups)]


def _collect(found: list[Found], grid: Grid) -> _All:
    origins = [torch.tensor([f.tile.x, f.tile.y] * 2) for f in found]
    counts = torch.tensor([len(f.instances) for f in found])
    return _All(
        torch.cat([f.instances.bboxes + at for f, at in zip(found, origins, strict=True)]),
        torch.cat([f.instances.scores for f in found]),
        torch.cat([f.instances.labels for f in found]),
        torch.arange(len(found)).repeat_interleave(counts),
        torch.cat([is_cut(f, grid) for f in found]),
    )


def is_cut(found: Found, grid: Grid) -> Tensor:
    """Which objects end at a border beyond which an overlapping tile goes on, bool (n,)."""
    x1, y1, x2, y2 = found.instances.bboxes.unbind(1)
    tile = found.tile
    return _ends(x1, x2, grid.columns, tile.column) | _ends(y1, y2, grid.rows, tile.row)


def _ends(low: Tensor, high: Tensor, axis: Axis, index: int) -> Tensor:
    before, after = axis.overlaps(index)
    near = max(2.0, _NEAR * axis.size)
    return ((low < near) & before) | ((high > axis.size - near) & after)


def _select(every: _All) -> Tensor:
    """Which stay, bool (n,): suppression across tiles, whole objects first, the surest first.

    One goes if a whole one of its class and of another tile has its place (intersection over
    union) or, for a piece, most of its area.
    """
    from mmdet.structures.bbox import bbox_overlaps

    kept = torch.zeros(len(every.boxes), dtype=torch.bool)
    for i in np.lexsort((-every.scores.numpy(), every.cut.numpy())).tolist():
        rivals = kept & ~every.cut & _rivals(every, i)
        mode = "iof" if every.cut[i] else "iou"
        overlaps = bbox_overlaps(every.boxes[i : i + 1], every.boxes[rivals], mode=mode)
        kept[i] = not bool((overlaps > _SAME).any())
    return kept


def _rivals(every: _All, i: int) -> Tensor:
    return (every.labels == every.labels[i]) & (every.tiles != every.tiles[i])


def _group(every: _All, pieces: Tensor, corners: Tensor) -> list[list[int]]:
    """Numbers of pieces that are of one object, for objects of several.

    Two are if their boxes agree within the rectangle that their tiles, with these ``corners``
    (tiles, 4), share.
    """
    from mmdet.structures.bbox import bbox_overlaps

    group = {i: [i] for i in pieces.nonzero()[:, 0].tolist()}
    for i in list(group):
        others = (pieces & _rivals(every, i)).nonzero()[:, 0]
        shared = _common(corners[every.tiles[i]], corners[every.tiles[others]])
        one, other = _common(every.boxes[i], shared), _common(every.boxes[others], shared)
        seen = _sides(one).gt(0).all(1) & _sides(other).gt(0).all(1)
        same = bbox_overlaps(one, other, is_aligned=True) > _SAME
        for j in others[seen & same].tolist():
            if group[j] is not group[i]:
                group[i].extend(group[j])
                group.update(dict.fromkeys(group[j], group[i]))
    return [members for i, members in group.items() if i == members[0] and len(members) > 1]


def _common(one: Tensor, other: Tensor) -> Tensor:
    """Rectangles (n, 4) that two sets of rectangles have in common; with sides <= 0 if none."""
    low, high = torch.maximum(one, other)[:, :2], torch.minimum(one, other)[:, 2:]
    return torch.cat([low, high], 1)


def _sides(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]


def _corners(tile: Tile) -> tuple[float, ...]:
    return float(tile.x), float(tile.y), float(tile.x + tile.width), float(tile.y + tile.height)


def _join(found: list[Found], every: _All, members: list[int]) -> Found:
    """One object of several pieces: all their area, and the best of their scores."""
    owners = every.tiles[members].tolist()
    corners = torch.tensor([_corners(found[owner].tile) for owner in owners]).long()
    x, y, right, bottom = *corners[:, :2].amin(0).tolist(), *corners[:, 2:].amax(0).tolist()
    frame = Tile(y, x, bottom - y, right - x, 0, 0)
    boxes = every.boxes[members] - torch.tensor([x, y, x, y])
    instances = InstanceData(
        bboxes=torch.cat([boxes[:, :2].amin(0), boxes[:, 2:].amax(0)])[None],
        scores=every.scores[members].max()[None],
        labels=every.labels[members][:1],
    )
    if "masks" in found[owners[0]].instances:
        instances.masks = [_join_masks(found, every, members, frame)]
    return Found(frame, instances)


def _join_masks(found: list[Found], every: _All, members: list[int], frame: Tile) -> object:
    codes = []
    for i in members:
        owner = int(every.tiles[i])
        tile, instances = found[owner]
        local = i - int((every.tiles < owner).sum())
        moved = tile._replace(y=tile.y - frame.y, x=tile.x - frame.x)
        codes.append(place(instances.masks[local], moved, (frame.height, frame.width)))
    return coco_mask.merge(codes)
