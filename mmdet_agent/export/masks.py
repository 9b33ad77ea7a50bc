"""Mask2Former and MaskFormer as they are exported: queries in, instances with masks out."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.compute.symbolic import crop
from mmdet_agent.export.detector import Detector, Sizes
from mmdet_agent.export.select import Candidates, leave_out_none, take_best
from mmengine_agent.errors import UserError
from mmengine_agent.export.mask_heads import make_recordable


class MaskDetector(Detector):
    """Detectors whose queries each make a mask; boxes are those of the masks.

    Raises:
        UserError: if the config asks for no instances.
    """

    def __init__(self, model: Any, prepare: nn.Module) -> None:
        super().__init__(model, prepare)
        if not model.panoptic_fusion_head.test_cfg.get("instance_on", False):
            raise UserError(
                f"cannot export the panoptic segments of a {type(model).__name__}, which are "
                "painted one over the other; its instances can be: --cfg-options "
                "model.test_cfg.instance_on=True"
            )
        make_recordable(model)

    def detect(self, x: Tensor, sizes: Sizes) -> dict[str, Tensor]:
        fusion = self.model.panoptic_fusion_head
        all_scores, all_masks = self.model.panoptic_head(self.model.extract_feat(x), None)
        scores = all_scores[-1].softmax(-1)[..., :-1]  # the last class is none
        best, index = scores.flatten(1).topk(fusion.test_cfg.get("max_per_image", 100))
        labels, query = index % fusion.num_classes, index // fusion.num_classes
        logits = full_size(pick_masks(all_masks[-1], query), (x.shape[2], x.shape[3]), sizes)
        masks = logits > 0
        sure = (logits.sigmoid() * masks).sum((2, 3)) / (masks.sum((2, 3)) + 1e-6)
        scores = torch.where(labels < fusion.num_things_classes, best * sure, 0.0)
        found, order = take_best(Candidates(mask_boxes(masks), scores, labels), best.shape[1])
        masks = pick_masks(masks, order) & (found.scores > 0)[:, :, None, None]
        return leave_out_none({**found._asdict(), "masks": masks})


def full_size(logits: Tensor, padded: Any, sizes: Sizes) -> Tensor:
    """Logits of masks (B, N, H_i, W_i) in the pixels of the picture."""

    def resize(values: Tensor, size: Any) -> Tensor:
        return F.interpolate(values, size=size, mode="bilinear", align_corners=False)

    logits = crop(resize(logits, padded), sizes.image)
    return logits if sizes.picture is sizes.image else resize(logits, sizes.picture)


def pick_masks(values: Tensor, index: Tensor) -> Tensor:
    """Of (B, N, ...) those of an index (B, K): (B, K, ...)."""
    first = torch.arange(index.shape[0]).unsqueeze(1) * values.shape[1]
    picked = values.flatten(0, 1).index_select(0, (first + index).flatten())
    return picked.unflatten(0, index.shape)


def mask_boxes(masks: Tensor) -> Tensor:
    """Boxes of masks (B, N, H, W), x1 y1 x2 y2 in pixels; 0 of an empty one: (B, N, 4)."""
    sides = []
    for axis in (2, 3):
        line = masks.any(axis)  # of columns, then of rows
        place = torch.arange(line.shape[2])
        begin = torch.where(line, place, line.shape[2]).amin(2)
        end = torch.where(line, place + 1, 0).amax(2)
        sides.append((torch.minimum(begin, end), end))
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], 2).float()
