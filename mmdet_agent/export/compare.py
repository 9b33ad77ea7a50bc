"""The objects that a file finds, compared with those that mmdet's own prediction finds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmdet.structures import DetDataSample
from torch import Tensor

from mmengine_agent.export.check import DifferenceError
from mmengine_agent.export.modules import Sizes

BOX, MASK = 0.01, 1e-3  # largest differences: of pixels, and of the share of a mask's pixels


class Differences(NamedTuple):
    """The largest between objects that are the same."""

    objects: int = 0
    box: float = 0.0  # pixels
    score: float = 0.0
    mask: float = 0.0  # share of the pixels

    def __str__(self) -> str:
        text = f"{self.objects} objects, boxes {self.box:.1e} pixels, scores {self.score:.1e}"
        return text + (f", masks {100 * self.mask:.3f} % of the pixels" if self.mask else "")

    def join(self, other: "Differences") -> "Differences":
        pairs = zip(self[1:], other[1:], strict=True)
        return Differences(self.objects + other.objects, *(max(pair) for pair in pairs))


@torch.no_grad()
def predict(model: Any, x: Tensor, sizes: Sizes) -> list[Any]:
    """The objects (``InstanceData``) of mmdet's own prediction.

    Args:
        model: mmdet's.
        x: images as the model takes them, normalised and padded: (B, 3, H', W').
        sizes: of the images in it.
    """
    padded = tuple(x.shape[2:])
    (height, width), (rows, columns) = sizes
    meta: dict[str, Any] = {
        "img_shape": sizes.image,
        "ori_shape": sizes.picture,
        "pad_shape": padded,
    }
    meta |= {"batch_input_shape": padded, "scale_factor": (width / columns, height / rows)}
    samples = [DetDataSample(metainfo=dict(meta)) for _ in x]
    return [sample.pred_instances for sample in model.predict(x, samples, rescale=True)]


def compare(
    wanted: Sequence[Any],
    found: Mapping[str, Tensor],
    least: float,
    tolerance: float,
    most: int | None = None,
) -> Differences:
    """Match the objects of a batch.

    Args:
        wanted: mmdet's objects, by image.
        found: the file's, as ``Detector.detect`` gives them.
        least: score above which an object is one: just above it either may lack it.
        tolerance: largest difference of scores.
        most: objects of an image; of some as good as the last one, which are in is chance.

    Raises:
        DifferenceError: if an object of either is none of the other's.
    """
    total = Differences()
    for number, objects in enumerate(wanted):
        rows = found["labels"][number] >= 0
        of_image = {name: value[number][rows] for name, value in found.items()}
        total = total.join(match(objects, of_image, least, tolerance, most))
    return total


def match(
    wanted: Any, found: Mapping[str, Tensor], least: float, tolerance: float, most: int | None
) -> Differences:
    """The differences between the objects of one image; see ``compare``."""
    boxes = (wanted.bboxes[:, None] - found["boxes"]).abs().amax(2)  # (wanted, found)
    scores = (wanted.scores[:, None] - found["scores"]).abs()
    same = (boxes <= BOX) & (scores <= tolerance) & (wanted.labels[:, None] == found["labels"])
    masks = torch.zeros_like(boxes)
    if "masks" in found:
        for i, j in same.nonzero().tolist():
            masks[i, j] = (wanted.masks[i] != found["masks"][j]).float().mean()
        same &= masks <= MASK
    apart = boxes / BOX + scores / tolerance + masks / MASK
    total, free = Differences(), torch.ones(len(found["labels"]), dtype=torch.bool)
    alone = []
    for i in range(len(wanted)):
        partners = (same[i] & free).nonzero().flatten()
        if not len(partners):
            alone.append(float(wanted.scores[i]))
            continue
        j = int(partners[apart[i, partners].argmin()])
        free[j] = False
        pair = Differences(1, float(boxes[i, j]), float(scores[i, j]), float(masks[i, j]))
        total = total.join(pair)
    alone += found["scores"][free].tolist()
    last = float(wanted.scores.min()) + tolerance if len(wanted) == most else 0.0
    if lost := [score for score in alone if score > last and abs(score - least) > tolerance]:
        raise DifferenceError(
            f"in {len(lost)} of {len(wanted)} objects, those with scores from {min(lost):.3f} to "
            f"{max(lost):.3f}, by more than {BOX} pixels, {tolerance:.1e} of a score or "
            f"{100 * MASK} % of a mask"
        )
    return total
