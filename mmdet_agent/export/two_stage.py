"""Two-stage detectors as they are exported: proposals, their boxes, and masks in these.

Faster, Mask and Cascade R-CNN. All images have as many proposals, the missing ones without a side.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from mmdet_agent.export.dense import decode
from mmdet_agent.export.detector import Detector, Sizes
from mmdet_agent.export.paste import paste
from mmdet_agent.export.select import (
    Candidates,
    drop_small,
    iou_threshold,
    leave_out_none,
    suppress,
    take_best,
)
from mmengine_agent.errors import UserError
from mmengine_agent.export.operators import roi_align


class TwoStageDetector(Detector):
    """Detectors with mmdet's ``StandardRoIHead`` or ``CascadeRoIHead``.

    Raises:
        UserError: if boxes' features are read in another way than the usual one.
    """

    def __init__(self, model: Any, prepare: nn.Module) -> None:
        super().__init__(model, prepare)
        roi = model.roi_head
        self.iou_threshold = iou_threshold(roi.test_cfg.nms)
        self.proposal_iou_threshold = iou_threshold(model.rpn_head.test_cfg.nms)
        for extractor in stages(roi.bbox_roi_extractor):
            require_usual(extractor)
        self.with_masks = roi.with_mask
        if self.with_masks:
            for extractor in stages(roi.mask_roi_extractor):
                require_usual(extractor)

    def detect(self, x: Tensor, sizes: Sizes) -> dict[str, Tensor]:
        maps = self.model.extract_feat(x)
        boxes, scores, exist = self.classify(maps, self.propose(maps, sizes.image), sizes.image)
        found = self.candidates(boxes, scores, exist)
        if not self.with_masks:  # mmdet then scales boxes before it drops doubles
            found = found._replace(boxes=sizes.to_picture(found.boxes))
        most = self.model.roi_head.test_cfg.max_per_img
        best, _ = take_best(suppress(found, self.iou_threshold, most), most)
        if not self.with_masks:
            return leave_out_none(best._asdict())
        best = Candidates(**leave_out_none(best._asdict(), 1))
        shapes = self.mask_shapes(maps, best)
        best = best._replace(boxes=sizes.to_picture(best.boxes))
        least = self.model.roi_head.test_cfg.mask_thr_binary
        masks = paste(shapes, best.boxes, sizes.picture, least)
        masks = masks & (best.scores > 0)[..., None, None]
        return leave_out_none({**best._asdict(), "masks": masks})

    def propose(self, maps: Sequence[Tensor], image: Pair) -> Candidates:
        """The proposals of an image: (B, K)."""
        head = self.model.rpn_head
        found, _, levels = decode(head, head(maps), 0.0, image)
        found = drop_small(found, head.test_cfg.get("min_bbox_size", -1))
        most = head.test_cfg.max_per_img
        # each level by itself
        found = suppress(found._replace(labels=levels), self.proposal_iou_threshold, most)
        return take_best(found, most)[0]

    def classify(
        self, maps: Sequence[Tensor], found: Candidates, image: Pair
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, K, C or 1, 4), scores (B, K, C) and whether there is such a proposal (B, K)."""
        roi, boxes = self.model.roi_head, found.boxes
        total: Any = 0.0
        heads = stages(roi.bbox_head)
        for number, (head, extractor) in enumerate(
            zip(heads, stages(roi.bbox_roi_extractor), strict=True)
        ):
            flat = boxes.flatten(0, 1)
            logits, deltas = head(read(extractor, maps, boxes))
            total = total + logits
            if number + 1 < len(heads):
                label = logits[:, :-1].argmax(1)
                flat = head.regress_by_class(flat, label, deltas, {"img_shape": image})
                boxes = flat.reshape(boxes.shape)
        scores = (total / len(heads)).softmax(-1)[:, :-1].reshape(*boxes.shape[:2], -1)
        each = 1 if head.reg_class_agnostic else head.num_classes
        start = flat.unsqueeze(1).expand(-1, each, -1).reshape(-1, 4)
        ends = head.bbox_coder.decode(start, deltas.reshape(-1, 4), max_shape=image)
        return ends.reshape(*boxes.shape[:2], each, 4), scores, found.scores > 0

    def candidates(self, boxes: Tensor, scores: Tensor, exist: Tensor) -> Candidates:
        """Each proposal as each class: (B, K * C)."""
        classes = scores.shape[2]
        usable = (scores > self.score_threshold) & exist.unsqueeze(2)
        label = torch.arange(classes, device=scores.device).expand_as(scores)
        return Candidates(
            boxes.expand(-1, -1, classes, -1).flatten(1, 2),
            torch.where(usable, scores, 0.0).flatten(1),
            label.flatten(1),
        )

    def mask_shapes(self, maps: Sequence[Tensor], found: Candidates) -> Tensor:
        """Probabilities of small masks, (B, N, S, S), each of its box."""
        roi = self.model.roi_head
        total: Any = 0.0
        heads = stages(roi.mask_head)
        for head, extractor in zip(heads, stages(roi.mask_roi_extractor), strict=True):
            total = total + head(read(extractor, maps, found.boxes)).sigmoid()
        shapes = total / len(heads)
        label = found.labels.clamp(min=0).flatten()
        if head.class_agnostic:
            label = torch.zeros_like(label)
        index = label[:, None, None, None].expand(-1, 1, *shapes.shape[2:])
        return shapes.gather(1, index).reshape(*found.labels.shape, *shapes.shape[2:])


def stages(part: Any) -> list[Any]:
    """The parts of a cascade, or the one of a usual head."""
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def read(extractor: Any, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Features (B * K, C, S, S) of boxes (B, K, 4), each of the map that fits its size.

    On the other maps a box has no side, and costs nothing.
    """
    flat = boxes.flatten(0, 1)
    number = torch.arange(boxes.shape[0], device=boxes.device)
    image = number.unsqueeze(1).expand(boxes.shape[:2]).flatten()
    levels = extractor.map_roi_levels(torch.cat([image[:, None], flat], 1), extractor.num_inputs)
    features = []
    for level, layer in enumerate(extractor.roi_layers):
        own = torch.where((levels == level).unsqueeze(1), flat, 0.0)
        size = layer.output_size[0]
        features.append(roi_align(maps[level], own, image, size, layer.spatial_scale))
    return torch.stack(features).sum(0)


def require_usual(extractor: Any) -> None:
    """Raise UserError if an extractor is none of RoIAlign's usual form."""
    usual = type(extractor).__name__ == "SingleRoIExtractor"
    for layer in extractor.roi_layers if usual else ():
        form = (getattr(layer, name, None) for name in ("aligned", "sampling_ratio", "pool_mode"))
        square = layer.output_size[0] == layer.output_size[1]
        usual = usual and tuple(form) == (True, 0, "avg") and square
    if not usual:
        raise UserError(
            f"cannot export a {type(extractor).__name__} of {extractor.roi_layers[0]} whole: only "
            "SingleRoIExtractor with RoIAlign, aligned, sampling_ratio=0. --raw gives the maps"
        )
