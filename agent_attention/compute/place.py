"""Averages of values by key and place, the sums of AFT's equations.

Shapes: keys k and values v (B, h, N, d); places u and z (h, r, N), whose product w = uᵀ z (h, N, N)
says how much the token of a column counts for the token of a row.
Letters: see ``agent_attention.mixers.agent``.
"""

import torch
from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.compute.numerics import exp_to_one

_FLOOR = -85.0  # exp of it is just a normal float32, so that no sum of weights vanishes


def average_plain(w: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Σ exp(k + w) v / Σ exp(k + w), sums over the keys: (B, h, N, d). The definition."""
    by_key, by_place = exp_to_one(k, -2), exp_to_one(w, -1, _FLOOR)
    above, below = (by_place @ torch.cat([by_key * v, by_key], -1)).chunk(2, -1)
    return above / below


def average(u: Tensor, z: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``average_plain`` with w = uᵀ z."""
    return average_plain(u.mT @ z, k, v)


def local_average(u: Tensor, z: Tensor, k: Tensor, v: Tensor, size: Pair, window: int) -> Tensor:
    """``average_plain`` with w = uᵀ z within windows, and 0 outside."""
    w = (u.mT @ z).masked_fill(~in_window(size, window, u.device), 0)
    return average_plain(w, k, v)


def in_window(size: Pair, window: int, device: torch.device) -> Tensor:
    """Which tokens are less than ``window`` rows and columns apart: (N, N)."""
    token = torch.arange(size[0] * size[1], device=device)
    row, column = token // size[1], token % size[1]
    near = [(at[:, None] - at).abs() < window for at in (row, column)]
    return near[0] & near[1]
