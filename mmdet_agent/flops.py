"""What the published counts run of a detector."""

from typing import Any

import torch
from mmdet.structures import DetDataSample
from torch import nn

PROPOSALS, MASKS = 1000, 100


def run_detector(model: Any, shape: tuple[int, int]) -> None:
    """Backbone, neck, dense head, and RoI heads on a fixed number of regions; shape (H, W)."""
    image = torch.empty(1, 3, *shape, device="meta")
    roi = getattr(model, "roi_head", None)
    if roi is None:
        sizes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), shape)
        model._forward(image, [DetDataSample(metainfo=sizes)])
        return
    model.rpn_head(model.extract_feat(image))
    for head in as_list(roi.bbox_head):
        head(torch.empty(PROPOSALS, head.in_channels, *head.roi_feat_size, device="meta"))
    if roi.with_mask:
        # in testing a cascade uses the mask heads of all its stages
        extractors = as_list(roi.mask_roi_extractor)
        for head, extractor in zip(as_list(roi.mask_head), extractors, strict=True):
            size = extractor.roi_layers[0].output_size
            head(torch.empty(MASKS, head.in_channels, *size, device="meta"))


def as_list(heads: Any) -> list[Any]:
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]
