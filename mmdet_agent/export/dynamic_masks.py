"""RTMDet-Ins as it is exported: masks by convolutions whose weights are found with the boxes."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.compute.symbolic import crop, resize
from mmdet_agent.export.dense import DenseDetector, by_place
from mmdet_agent.export.detector import Sizes
from mmdet_agent.export.select import leave_out_none, pick


class DynamicMaskDetector(DenseDetector):
    """Detectors with mmdet's ``RTMDetInsHead`` or ``RTMDetInsSepBNHead``."""

    def detect(self, x: Tensor, sizes: Sizes) -> dict[str, Tensor]:
        head = self.model.bbox_head
        *outputs, kernels, features = head(self.model.extract_feat(x))
        found, order = self.find(outputs, sizes)
        best = leave_out_none({**found._asdict(), "places": order}, 1)
        places = best.pop("places")
        chosen = pick(torch.cat([by_place(each, each.shape[1]) for each in kernels], 1), places)
        priors = head.prior_generator.grid_priors(
            [each.shape[2:] for each in kernels], device=x.device, with_stride=True
        )
        centres = torch.cat(priors)[places]
        logits = convolve(head, features, chosen, centres)
        (stride, _), *_ = head.prior_generator.strides
        logits = F.interpolate(logits, scale_factor=stride, mode="bilinear")
        if sizes.picture is not sizes.image:
            rows, columns = (
                (padded * given + seen - 1) // seen
                for padded, given, seen in zip(x.shape[2:], sizes.picture, sizes.image, strict=True)
            )
            logits = resize(logits, (rows, columns))
        masks = crop(logits, sizes.picture).sigmoid() > self.settings.mask_thr_binary
        return leave_out_none({**best, "masks": masks & (best["scores"] > 0)[..., None, None]})


def convolve(head: Any, features: Tensor, kernels: Tensor, centres: Tensor) -> Tensor:
    """Logits of masks, by a small network for each object.

    Args:
        head: mmdet's.
        features: (B, C, H, W), shared by the objects.
        kernels: (B, N, P), all weights and biases of an object.
        centres: (B, N, 4), x y of an object and the stride of its level, twice.

    Returns:
        (B, N, H, W).
    """
    size = features.shape[2:]
    grid = head.prior_generator.single_level_grid_priors(size, 0, device=features.device)
    apart = (centres[..., None, :2] - grid) / (centres[..., None, 2:3] * 8)
    shared = features.flatten(2).unsqueeze(1).expand(-1, kernels.shape[1], -1, -1)
    x = torch.cat([apart.transpose(2, 3), shared], 2)  # (B, N, 2 + C, H * W)
    parts = kernels.split(head.weight_nums + head.bias_nums, 2)
    layers = len(head.weight_nums)
    for number in range(layers):
        bias = parts[layers + number].unsqueeze(3)
        weight = parts[number].reshape(*kernels.shape[:2], bias.shape[2], -1)
        x = weight @ x + bias
        if number + 1 < layers:
            x = x.relu()
    return x.reshape(*kernels.shape[:2], *size)
