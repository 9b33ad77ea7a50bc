"""What the published counts run of a segmentor: all but the auxiliary head."""

from typing import Any

import torch


def run_segmentor(model: Any, shape: tuple[int, int]) -> None:
    """Backbone, neck and decode head on an image (H, W)."""
    image = torch.empty(1, 3, *shape, device="meta")
    model.decode_head(model.extract_feat(image))
