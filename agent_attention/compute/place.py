"""Averages of values by key and place, the sums of AFT's equations.

Shapes: keys k and values v (B, h, N, d); places u and z (h, r, N), whose product w = uᵀ z (h, N, N)
says how much the token of a column counts for the token of a row.
Letters: see ``agent_attention.mixers.agent``.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.guard import settings
from agent_attention.compute.kernel_average import box_sum
from agent_attention.compute.numerics import FLOOR, exp_to_one, exp_within


def average_plain(w: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Σ exp(k + w) v / Σ exp(k + w), sums over the keys: (B, h, N, d). The definition."""
    by_key, by_place = exp_to_one(k, -2), exp_to_one(w, -1, FLOOR)
    above, below = (by_place @ torch.cat([by_key * v, by_key], -1)).chunk(2, -1)
    return above / below


def average(u: Tensor, z: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``average_plain`` with w = uᵀ z."""
    return average_plain(u.mT @ z, k, v)


def local_average(u: Tensor, z: Tensor, k: Tensor, v: Tensor, size: Pair, window: int) -> Tensor:
    """``average_plain`` with w = uᵀ z within windows, and 0 outside."""
    if settings().way == "plain":
        w = (u.mT @ z).masked_fill(~in_window(size, window, u.device), 0)
        return average_plain(w, k, v)
    return _by_shifts(u, z, k, v, size, window)


def _by_shifts(u: Tensor, z: Tensor, k: Tensor, v: Tensor, size: Pair, window: int) -> Tensor:
    """The same with nothing of N x N: one shifted map after the other, and a box for the rest."""
    pad, (height, width), d = window - 1, size, v.shape[-1]
    places = [(i, j) for i in range(2 * pad + 1) for j in range(2 * pad + 1)]
    around = F.pad(z.unflatten(-1, tuple(size)), (pad,) * 4)  # (h, r, H', W')
    query = u.unflatten(-1, tuple(size))
    w = torch.stack(
        [(query * around[..., i : i + height, j : j + width]).sum(1) for i, j in places]
    )
    inside, outside = exp_within(w.unsqueeze(-1), (0,))  # ((2s - 1)², h, H, W, 1), (1, h, H, W, 1)
    by_key = exp_to_one(k, -2)
    terms = torch.cat([by_key * v, by_key], -1).unflatten(2, tuple(size))  # (B, h, H, W, 2d)
    shifted = F.pad(terms, (0, 0, *(pad,) * 4))
    near = torch.zeros_like(terms)
    for weight, (i, j) in zip(inside, places, strict=True):
        near = near + weight * shifted[:, :, i : i + height, j : j + width]
    maps = terms.permute(0, 1, 4, 2, 3).flatten(1, 2)  # (B, h*2d, H, W)
    box = box_sum(maps, 2 * pad + 1).unflatten(1, terms.shape[1::3]).permute(0, 1, 3, 4, 2)
    far = terms.sum((2, 3), keepdim=True) - box
    above = near[..., :d] + outside * far[..., :d]
    below = near[..., d:] + outside * far[..., d:].clamp(min=0)
    return (above / below).flatten(2, 3)


def in_window(size: Pair, window: int, device: torch.device) -> Tensor:
    """Which tokens are less than ``window`` rows and columns apart: (N, N)."""
    token = torch.arange(size[0] * size[1], device=device)
    row, column = token // size[1], token % size[1]
    near = [(at[:, None] - at).abs() < window for at in (row, column)]
    return near[0] & near[1]
