"""One-stage detectors as they are exported: boxes from the maps of a dense head."""

from typing import Any

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from mmdet_agent.export.detector import Detector, Sizes
from mmdet_agent.export.select import (
    Candidates,
    best_of_levels,
    drop_small,
    iou_threshold,
    leave_out_none,
    pick,
    suppress,
    take_best,
)


class DenseDetector(Detector):
    """RetinaNet, ATSS, GFL, FCOS, RTMDet and others whose heads decode as mmdet's base class."""

    def __init__(self, model: Any, prepare: nn.Module) -> None:
        super().__init__(model, prepare)
        self.settings = model.bbox_head.test_cfg
        self.iou_threshold = iou_threshold(self.settings.nms)

    def detect(self, x: Tensor, sizes: Sizes) -> dict[str, Tensor]:
        best, _ = self.find(self.model.bbox_head(self.model.extract_feat(x)), sizes)
        return leave_out_none(best._asdict())

    def find(self, outputs: Any, sizes: Sizes) -> tuple[Candidates, Tensor]:
        """The best candidates, and their places (B, K) in all levels, one after the other."""
        head, most = self.model.bbox_head, self.settings.max_per_img
        found, places, _ = decode(head, outputs, self.score_threshold, sizes.image)
        found = found._replace(boxes=sizes.to_picture(found.boxes))
        found = drop_small(found, self.settings.get("min_bbox_size", -1))
        best, order = take_best(suppress(found, self.iou_threshold, most), most)
        return best, places.gather(1, order)


def decode(
    head: Any, outputs: Any, threshold: Tensor | float, image: Pair
) -> tuple[Candidates, Tensor, Tensor]:
    """The boxes of a dense head's best scores, as its ``predict_by_feat`` decodes them.

    Args:
        head: mmdet's.
        outputs: of its ``forward``: maps of scores, boxes and, of some, factors of the scores.
        threshold: of scores, without the factors.
        image: (H, W) to which boxes are clipped.

    Returns:
        the candidates; their places in all levels, one after the other; their levels.
    """
    levels = [activate(head, by_place(each, head.cls_out_channels)) for each in outputs[0]]
    scores, places, labels, numbers = best_of_levels(
        levels, threshold, head.test_cfg.get("nms_pre", -1)
    )
    priors = head.prior_generator.grid_priors(
        [each.shape[2:] for each in outputs[0]], device=scores.device
    )
    anchors = torch.cat(priors)[places.flatten()]
    deltas = [by_place(each, each.shape[1] // head.num_base_priors) for each in outputs[1]]
    if hasattr(head, "integral"):  # GFL's distributions of distances, in cells
        anchors = head.anchor_center(anchors)
        strides = (stride for stride, _ in head.prior_generator.strides)
        deltas = [
            head.integral(each).reshape(*each.shape[:2], 4) * stride
            for each, stride in zip(deltas, strides, strict=True)
        ]
    chosen = pick(torch.cat(deltas, 1), places)
    boxes = head.bbox_coder.decode(anchors, chosen.flatten(0, 1), max_shape=image)
    if len(outputs) == 3:
        factors = torch.cat([by_place(each, 1).sigmoid() for each in outputs[2]], 1)
        scores = scores * pick(factors, places).squeeze(2)
    return Candidates(boxes.reshape(*places.shape, 4), scores, labels), places, numbers


def by_place(x: Tensor, width: int) -> Tensor:
    """Maps (B, A * width, H, W) as (B, H * W * A, width)."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)


def activate(head: Any, logits: Tensor) -> Tensor:
    """Scores of the classes from logits (B, N, C); where it is softmax the last class is none."""
    return logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]
