"""Averages of values by key and relative place, the sums of AFT-conv.

Letters: see ``agent_attention.mixers.agent``; s is the side of the kernel.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.numerics import exp_to_one, exp_within


def kernel_average(place: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
    """Σ exp(k + ŵ) v / Σ exp(k + ŵ), sums over all tokens, with ŵ = 0 beyond the kernel.

    The sum over the kernel is a convolution. The one beyond is that over all tokens less that over
    the box of the kernel: unlike Σ (exp(ŵ) - 1) of the paper's eq. 8, it never subtracts a large
    number from itself where the kernel suppresses the strongest key.

    Args:
        place: ŵ (h, s, s).
        k: keys (B, N, h).
        v: values (B, N, C).
        size: of the map, (H, W).

    Returns:
        (B, N, C).
    """
    heads, side, _ = place.shape
    inside, outside = exp_within(place, (1, 2))  # (h, s, s), (h, 1, 1)
    weights = exp_to_one(k, 1).unsqueeze(-1)  # (B, N, h, 1)
    terms = torch.cat([weights * v.unflatten(-1, (heads, -1)), weights], -1)  # (B, N, h, d + 1)
    channels = terms.shape[-1]
    maps = terms.flatten(2).unflatten(1, tuple(size)).permute(0, 3, 1, 2)  # (B, h*(d+1), H, W)
    kernel = inside.repeat_interleave(channels, 0).unsqueeze(1)
    near = F.conv2d(maps, kernel, padding=side // 2, groups=len(kernel))
    far = maps.sum((2, 3), keepdim=True) - box_sum(maps, side)
    near, far = (x.unflatten(1, (heads, channels)) for x in (near, far))
    outside = outside.unsqueeze(1)
    above = near[:, :, :-1] + outside * far[:, :, :-1]
    below = near[:, :, -1:] + outside * far[:, :, -1:].clamp(min=0)
    return (above / below).flatten(1, 2).flatten(2).mT


def box_sum(x: Tensor, side: int) -> Tensor:
    """Sums of maps (B, C, H, W) over the ``side`` x ``side`` pixels around each pixel."""
    pad = side // 2
    # of padded pools of channels-last maps, torch 2.11 computes wrong gradients on a GPU
    x = x.contiguous()
    rows = F.avg_pool2d(x, (side, 1), 1, (pad, 0), divisor_override=1)
    return F.avg_pool2d(rows, (1, side), 1, (0, pad), divisor_override=1)
