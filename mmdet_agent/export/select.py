"""The best candidates of each level, without doubles, as a graph with open sizes selects them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmengine_agent.errors import UserError
from mmengine_agent.export.operators import nms


class Candidates(NamedTuple):
    """Boxes that may be objects, those of B images side by side."""

    boxes: Tensor  # (B, N, 4), x1 y1 x2 y2
    scores: Tensor  # (B, N), 0 of one that is none
    labels: Tensor  # int64 (B, N)


def iou_threshold(config: Any) -> float:
    """The threshold of a head's suppression.

    Raises:
        UserError: if it is another than the plain one.
    """
    extra = set(config) - {"type", "iou_threshold", "class_agnostic"}
    if config.get("type", "nms") != "nms" or extra or config.get("class_agnostic"):
        raise UserError(
            f"cannot export the suppression {dict(config)} whole: only type='nms' with an "
            "iou_threshold, by class. --raw gives the outputs that boxes are made of"
        )
    return float(config["iou_threshold"])


def best_of_levels(
    levels: Sequence[Tensor], threshold: Tensor | float, most: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The best scores of each level.

    Args:
        levels: scores (B, n_i, C) at the n_i places of each.
        threshold: scores up to it are none.
        most: taken of a level; -1 for all.

    Returns:
        scores (B, N), 0 of none; places (B, N) in all levels, one after the other; classes (B, N);
        levels (B, N).
    """
    scores, places, classes, numbers, begin = [], [], [], [], 0
    for number, level in enumerate(levels):
        flat = level.flatten(1)
        count = flat.shape[1] if most < 0 else torch.sym_min(most, flat.shape[1])
        top, index = torch.where(flat > threshold, flat, 0.0).topk(count, 1)
        place = index.div(level.shape[2], rounding_mode="floor")
        scores.append(top)
        places.append(place + begin)
        classes.append(index - place * level.shape[2])
        numbers.append(torch.full_like(index, number))
        begin = begin + level.shape[1]
    return tuple(torch.cat(each, 1) for each in (scores, places, classes, numbers))  # type: ignore


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Of (B, N, D) those that an index (B, K) names: (B, K, D)."""
    return x.gather(1, index.unsqueeze(2).expand(-1, -1, x.shape[2]))


def drop_small(found: Candidates, least: float) -> Candidates:
    """Give boxes with a side of ``least`` and less a score of 0; none if it is negative."""
    if least < 0:
        return found
    large = ((found.boxes[..., 2:] - found.boxes[..., :2]) > least).all(2)
    return found._replace(scores=torch.where(large, found.scores, 0.0))


def suppress(found: Candidates, threshold: float, most: int) -> Candidates:
    """Drop what a better box of its label overlaps, as mmcv's ``batched_nms`` does it.

    Boxes are moved apart by label, with mmcv's own distance: the rounding is the same then.
    """
    inside = torch.where(found.scores.unsqueeze(2) > 0, found.boxes, 0.0)
    apart = inside.amax((1, 2)).unsqueeze(1) + 1
    moved = inside + (found.labels.to(inside.dtype) * apart).unsqueeze(2)
    kept = nms(moved, found.scores, threshold, most)
    return found._replace(scores=torch.where(kept, found.scores, 0.0))


def take_best(found: Candidates, most: int) -> tuple[Candidates, Tensor]:
    """The ``most`` best candidates, or as many as there are, and their places (B, K)."""
    count = torch.sym_min(most, found.scores.shape[1])
    scores, order = found.scores.topk(count, 1)
    boxes = torch.where(scores.unsqueeze(2) > 0, pick(found.boxes, order), 0.0)
    labels = torch.where(scores > 0, found.labels.gather(1, order), -1)
    return Candidates(boxes, scores, labels), order


def leave_out_none(outputs: dict[str, Tensor], least: int = 0) -> dict[str, Tensor]:
    """Outputs (B, K, ...) without the columns in which no image has an object.

    Args:
        outputs: with the scores of ``take_best``.
        least: how many columns are kept in any case: other runtimes' layers may take no empty
            tensor.
    """
    count = (outputs["scores"] > 0).sum(1).max().clamp(min=least).item()
    torch._check(count >= least)
    torch._check(count <= outputs["scores"].shape[1])
    columns = torch.arange(count, device=outputs["scores"].device)
    return {name: value.index_select(1, columns) for name, value in outputs.items()}
