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
from agent_attention.compute.symbolic import is_symbolic

_BLOCK = 8  # tokens a side, which share the tokens around them


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
    few = 2 * (_BLOCK + 2 * (window - 1)) ** 2  # tokens that blocks would take twice
    if settings().way == "plain" or (not is_symbolic(size) and size[0] * size[1] <= few):
        w = (u.mT @ z).masked_fill(~in_window(size, window, u.device), 0)
        return average_plain(w, k, v)
    return _by_blocks(u, z, k, v, size, window)


def _by_blocks(u: Tensor, z: Tensor, k: Tensor, v: Tensor, size: Pair, window: int) -> Tensor:
    """The same with nothing of N x N: blocks of tokens with the tokens around them, and a box."""
    margin, d = window - 1, v.shape[-1]
    by_key = exp_to_one(k, -2)
    terms = torch.cat([by_key * v, by_key], -1)  # (B, h, N, 2d)
    w = _blocks(u.mT, size) @ _blocks(z.mT, size, margin).mT  # (h, blocks, block², wide²)
    beyond = _beyond_window(window, u.device)
    inside, outside = exp_within(w.masked_fill(beyond, -torch.inf), (-1,))
    inside = inside.masked_fill(beyond, 0)
    of_window = _tokens(inside @ _blocks(terms, size, margin), size)
    maps = terms.flatten(0, 1).unflatten(1, tuple(size)).permute(0, 3, 1, 2)  # channels last
    box = box_sum(maps, 2 * margin + 1).permute(0, 2, 3, 1).reshape(terms.shape)
    far = terms.sum(-2, keepdim=True) - box
    outside = _tokens(outside, size)
    above = of_window[..., :d] + outside * far[..., :d]
    below = of_window[..., d:] + outside * far[..., d:].clamp(min=0)
    return above / below


def _beyond_window(window: int, device: torch.device) -> Tensor:
    """Which tokens of a block's surroundings are beyond the window of each: (block², wide²)."""
    at = torch.arange(_BLOCK + 2 * (window - 1), device=device) - (window - 1)
    far = (at - at[window - 1 : window - 1 + _BLOCK, None]).abs() >= window  # (block, wide)
    return (far[:, None, :, None] | far[None, :, None, :]).flatten(2).flatten(0, 1)


def in_window(size: Pair, window: int, device: torch.device) -> Tensor:
    """Which tokens are less than ``window`` rows and columns apart: (N, N)."""
    token = torch.arange(size[0] * size[1], device=device)
    row, column = token // size[1], token % size[1]
    near = [(at[:, None] - at).abs() < window for at in (row, column)]
    return near[0] & near[1]


def _blocks(x: Tensor, size: Pair, margin: int = 0) -> Tensor:
    """Tokens (..., N, C) in blocks with a margin: (..., blocks, (block + 2 margin)², C)."""
    wide = _BLOCK + 2 * margin
    right, below = (-n % _BLOCK + margin for n in size[::-1])
    maps = F.pad(x.unflatten(-2, tuple(size)), (0, 0, margin, right, margin, below))
    blocks = maps.unfold(-3, wide, _BLOCK).unfold(-3, wide, _BLOCK)  # (..., i, j, C, wide, wide)
    return blocks.movedim(-3, -1).flatten(-5, -4).flatten(-3, -2)


def _tokens(blocks: Tensor, size: Pair) -> Tensor:
    """Blocks (..., blocks, block², C) as tokens (..., N, C)."""
    down, across = (-(-n // _BLOCK) for n in size)
    grid = blocks.unflatten(-2, (_BLOCK, _BLOCK)).unflatten(-4, (down, across)).transpose(-4, -3)
    maps = grid.flatten(-5, -4).flatten(-3, -2)
    return maps[..., : size[0], : size[1], :].flatten(-3, -2)
