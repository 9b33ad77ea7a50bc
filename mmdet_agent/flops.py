"""What the published counts run of a detector."""

from typing import Any

import torch
from torch import nn

PROPOSALS, MASKS = 1000, 100


def run_detector(model: Any, shape: tuple[int, int]) -> None:
    """Backbone, neck, dense head, and RoI heads on a fixed number of regions."""
    features = model.extract_feat(torch.empty(1, 3, *shape, device="meta"))
    roi = getattr(model, "roi_head", None)
    if roi is None:
        model.bbox_head(features)
        return
    model.rpn_head(features)
    for head in as_list(roi.bbox_head):
        head(torch.empty(PROPOSALS, *region(head), device="meta"))
    if roi.with_mask:
        # in testing a cascade uses the mask heads of all its stages
        extractors = as_list(roi.mask_roi_extractor)
        for head, extractor in zip(as_list(roi.mask_head), extractors, strict=True):
            size = extractor.roi_layers[0].output_size
            head(torch.empty(MASKS, head.in_channels, *size, device="meta"))


def region(head: Any) -> tuple[int, int, int]:
    """Shape (C, H, W) of the features a box head takes."""
    return (head.in_channels, *head.roi_feat_size)


def as_list(heads: Any) -> list[Any]:
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]
