"""Objects of an image from what was found in its overlapping tiles.

Tiles that overlap show some objects twice, and cut some. An object smaller than the overlap is
whole in some tile, and comes from there. A larger one is joined from its pieces, if they agree on
what two tiles share. What one tile shows, and tiles that do not overlap, is left as it is.
"""

from collections.abc import Callable

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps
from pycocotools import mask as coco_mask
from torch import Tensor

from mmdet_agent.predict.instances import Box, Instance, place
from mmengine_agent.predict.sliding_window import Span, Tile

Rivals = Callable[[int], Tensor]
_SAME = 0.5  # overlap from which boxes of one class in two tiles are of one object
_NEAR = 0.01  # of a tile's side: how far from the border a box may end that the border cut


def merge(found: list[Instance]) -> list[Instance]:
    """The objects of the image; a joined one comes with the rectangle of the tiles that show it."""
    cut = torch.tensor([_is_cut(each) for each in found], dtype=torch.bool)
    boxes = torch.tensor([each.box for each in found]).reshape(-1, 4)
    tiles = torch.tensor([_corners(each.tile) for each in found]).reshape(-1, 4)
    labels = torch.tensor([each.label for each in found])

    def rivals(i: int) -> Tensor:  # those of its class in other tiles, bool (n,)
        return (labels == labels[i]) & (tiles != tiles[i]).any(1)

    order = np.lexsort((-np.array([each.score for each in found]), cut.numpy())).tolist()
    kept = _suppress(boxes, cut, rivals, order)
    groups = _group_pieces(boxes, tiles, kept & cut, rivals)
    joined = {number for group in groups for number in group}
    single = [each for i, each in enumerate(found) if kept[i] and i not in joined]
    return [*single, *(_join([found[i] for i in group]) for group in groups)]


def _is_cut(each: Instance) -> bool:
    """Whether an object ends at a border beyond which an overlapping tile goes on."""
    (x1, y1, x2, y2), tile = each.box, each.tile
    return _is_cut_along(tile.columns, x1, x2) or _is_cut_along(tile.rows, y1, y2)


def _is_cut_along(span: Span, low: float, high: float) -> bool:
    near = max(2.0, _NEAR * (span.end - span.start))
    before, after = span.shared
    return (before and low < span.start + near) or (after and high > span.end - near)


def _suppress(boxes: Tensor, cut: Tensor, rivals: Rivals, order: list[int]) -> Tensor:
    """Which stay, bool (n,): suppression across tiles, whole objects first, the surest first.

    One goes if a whole one of its class and of another tile has its place (intersection over
    union) or, for a piece, most of its area.
    """
    whole = torch.zeros(len(boxes), dtype=torch.bool)  # kept, and not cut
    kept = whole.clone()
    for i in order:
        mode = "iof" if cut[i] else "iou"
        overlaps = bbox_overlaps(boxes[i : i + 1], boxes[rivals(i) & whole], mode=mode)
        kept[i] = not (overlaps > _SAME).any()
        whole[i] = kept[i] & ~cut[i]
    return kept


def _group_pieces(boxes: Tensor, tiles: Tensor, pieces: Tensor, rivals: Rivals) -> list[list[int]]:
    """Numbers of pieces that are of one object, for objects of several.

    Two are if their boxes agree within the rectangle that their tiles share.
    """
    group = {i: [i] for i in pieces.nonzero()[:, 0].tolist()}
    for i in list(group):
        others = (pieces & rivals(i)).nonzero()[:, 0]
        shared = _intersect(tiles[i], tiles[others])
        one, other = _intersect(boxes[i], shared), _intersect(boxes[others], shared)
        seen = (one[:, 2:] > one[:, :2]).all(1) & (other[:, 2:] > other[:, :2]).all(1)
        same = seen & (bbox_overlaps(one, other, is_aligned=True) > _SAME)
        for j in others[same].tolist():
            if group[j] is not group[i]:
                group[i].extend(group[j])
                group.update(dict.fromkeys(group[j], group[i]))
    return [members for i, members in group.items() if i == members[0] and len(members) > 1]


def _intersect(one: Tensor, other: Tensor) -> Tensor:
    """The rectangles (n, 4) that two sets have in common; of negative sides if none."""
    low, high = torch.maximum(one, other), torch.minimum(one, other)
    return torch.cat([low[..., :2], high[..., 2:]], -1)


def _corners(tile: Tile) -> Box:
    return tile.columns.start, tile.rows.start, tile.columns.end, tile.rows.end


def _join(pieces: list[Instance]) -> Instance:
    """One object of several pieces: all their area, and the best of their scores."""
    left, top, right, bottom = map(int, _hull([_corners(each.tile) for each in pieces]))
    mask = None
    if pieces[0].mask is not None:
        codes = []
        for each in pieces:
            rows, columns = each.tile
            moved = Tile(
                Span(rows.start - top, rows.end - top),
                Span(columns.start - left, columns.end - left),
            )
            codes.append(place(each.mask, moved, (bottom - top, right - left)))
        mask = coco_mask.merge(codes)
    score = max(each.score for each in pieces)
    around = Tile(Span(top, bottom), Span(left, right))
    return Instance(_hull([each.box for each in pieces]), score, pieces[0].label, around, mask)


def _hull(boxes: list[Box]) -> Box:
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)
