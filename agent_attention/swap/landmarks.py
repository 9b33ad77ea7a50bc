"""Landmarks of a map: queries, keys or values averaged over the cells of a grid.

Shapes: tokens (B, h, T, d) of a map (H, W) with N = H*W tokens, behind ``extra`` = T - N tokens
that have no place on it (class, distillation and register tokens).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.symbolic import cell_means, pool
from agent_attention.mixers.grids import GridRule

Grid = Pair | int | GridRule | Callable[[Pair], Pair]
_BASE, _SIDE = 7, 14  # p, and the map at pre-training, of a plain ViT: what a rule counts from


def grid_on(grid: Grid, size: Pair) -> Pair:
    """Rows and columns (a_h, a_w) of landmarks on a map of ``size`` (H, W), at most H and W.

    Args:
        grid: a pair; a number of landmarks in cells as square as the map allows; a rule; or a
            function of the map's size.
        size: (H, W).

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(grid, int) and not isinstance(grid, bool):
        grid = GridRule(aspect=True, within=True, agents=grid)
    found = grid.grid(size, _BASE, _SIDE) if isinstance(grid, GridRule) else grid
    found = found(size) if callable(found) else found
    if not isinstance(found, tuple | list) or len(found) != 2 or min(found) < 1:
        raise ValueError(
            "a grid is a pair (rows, columns), a number of landmarks, a GridRule, or a function of "
            f"the map's (H, W) that gives a pair; got {grid!r}, which gives {found!r}"
        )
    return min(int(found[0]), size[0]), min(int(found[1]), size[1])


def key_map(size: Pair, keys: int) -> Pair | None:
    """The map (H//R, W//R) that a map of ``size`` is reduced to if it has so many keys, or None."""
    height, width = size
    for ratio in range(1, min(height, width) + 1):
        reduced = (height // ratio, width // ratio)
        if reduced[0] * reduced[1] == keys:
            return reduced
    return None


def split_extra(x: Tensor, extra: int) -> tuple[Tensor, Tensor]:
    """Tokens without a place, and those of the map."""
    return x[:, :, :extra], x[:, :, extra:]


def to_maps(x: Tensor, size: Pair) -> Tensor:
    """Tokens (B, h, N, d) of a map as (B, C, H, W)."""
    return x.transpose(1, 2).flatten(2).unflatten(1, tuple(size)).permute(0, 3, 1, 2)


def to_heads(x: Tensor, heads: int) -> Tensor:
    """Maps (B, C, H, W) as tokens (B, h, N, d)."""
    return x.flatten(2).unflatten(1, (heads, -1)).mT


def pool_tokens(x: Tensor, size: Pair, grid: Pair, extra: int = 0) -> Tensor:
    """Tokens (B, h, extra + N, d) averaged over cells: (B, h, extra + n, d), n = a_h * a_w."""
    if tuple(grid) == tuple(size):
        return x
    front, on_map = split_extra(x, extra)
    pooled = to_heads(pool(to_maps(on_map, size), grid), x.shape[1])
    return torch.cat([front, pooled], 2) if extra else pooled


def log_cell_sizes(size: Pair, grid: Pair, extra: int, like: Tensor) -> Tensor | None:
    """log c (1, extra + n): how many tokens a landmark stands for; None where all are equal."""
    even = not (size[0] % grid[0] or size[1] % grid[1])
    if tuple(grid) == tuple(size) or (even and not extra):
        return None  # the same for all keys, which the softmax takes no notice of
    exact = torch.float64 if like.dtype == torch.float64 else torch.float32
    kind = like.new_empty(0, dtype=exact)
    rows, columns = (1 / cell_means(size[i], grid[i], kind).amax(1) for i in (0, 1))
    cells = (rows.unsqueeze(1) * columns).log().flatten()
    return F.pad(cells, (extra, 0)).to(like.dtype).unsqueeze(0)


def spread(v: Tensor, reduced: Pair, size: Pair) -> Tensor:
    """Values (B, h, m, d) of a reduced map for each place of the map: (B, h, N, d)."""
    return to_heads(F.interpolate(to_maps(v, reduced), size, mode="nearest"), v.shape[1])
