"""YOLOX as it is exported: the best class of each place, and whether there is an object."""

from typing import Any

import torch
from torch import Tensor, nn

from mmdet_agent.export.dense import by_place
from mmdet_agent.export.detector import Detector, Sizes
from mmdet_agent.export.select import (
    Candidates,
    iou_threshold,
    leave_out_none,
    suppress,
    take_best,
)

_MOST = 10_000  # objects of an image; mmdet has no limit, mmcv's suppression changes there


class YoloxDetector(Detector):
    """Detectors with mmdet's ``YOLOXHead``, whose boxes are not clipped to the image."""

    def __init__(self, model: Any, prepare: nn.Module) -> None:
        super().__init__(model, prepare)
        self.iou_threshold = iou_threshold(model.bbox_head.test_cfg.nms)

    def detect(self, x: Tensor, sizes: Sizes) -> dict[str, Tensor]:
        head = self.model.bbox_head
        outputs = head(self.model.extract_feat(x))
        priors = head.prior_generator.grid_priors(
            [each.shape[2:] for each in outputs[0]], device=x.device, with_stride=True
        )
        widths = (head.cls_out_channels, 4, 1)
        logits, deltas, exists = (
            torch.cat([by_place(each, width) for each in levels], 1)
            for levels, width in zip(outputs, widths, strict=True)
        )
        scores, labels = logits.sigmoid().max(2)
        scores = scores * exists.squeeze(2).sigmoid()
        place, stride = torch.cat(priors).split(2, 1)
        centre, side = place + deltas[..., :2] * stride, deltas[..., 2:].exp() * stride
        found = Candidates(
            sizes.to_picture(torch.cat([centre - side / 2, centre + side / 2], 2)),
            torch.where(scores >= self.score_threshold, scores, 0.0),
            labels,
        )
        best, _ = take_best(suppress(found, self.iou_threshold, _MOST), _MOST)
        return leave_out_none(best._asdict())
