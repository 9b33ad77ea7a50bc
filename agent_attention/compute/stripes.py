"""How a map is cut into stripes of some columns or rows, and how stripes become a map again.

G is the number of stripes of one image. With a symbolic size the same is done by index, see
``window_cut``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.symbolic import count_cells, divide, is_symbolic, missing, numbers


def cut_stripes(tensors: Sequence[Tensor], size: Pair, width: int, vertical: bool) -> list[Tensor]:
    """Tokens (B, N, C) of a map (H, W) -> stripes (B*G, H, M, C), or (B*G, M, W, C), of each."""
    if not is_symbolic(size):
        return [_cut(x, size, width, vertical) for x in tensors]
    sources = stripe_sources(size, width, vertical, tensors[0].device)
    stripe = (size[0], width) if vertical else (width, size[1])
    padded = [F.pad(x, (0, 0, 0, 1)).index_select(1, sources) for x in tensors]  # (B, G*H*M, C)
    return [x.flatten(0, 1).unflatten(0, (-1, *stripe)) for x in padded]


def _cut(x: Tensor, size: Pair, width: int, vertical: bool) -> Tensor:
    """The stripes of one of the tensors."""
    x = x.unflatten(1, tuple(size))
    if lacking := missing(size[1 if vertical else 0], width):
        around = (lacking // 2, lacking - lacking // 2)
        x = F.pad(x, (0, 0, *around) if vertical else (0, 0, 0, 0, *around))
    if not vertical:
        return x.unflatten(1, (-1, width)).flatten(0, 1)
    return x.unflatten(2, (-1, width)).transpose(1, 2).flatten(0, 1)


def join_stripes(x: Tensor, size: Pair, width: int, vertical: bool, batch: int) -> Tensor:
    """Stripes -> tokens (B, N, C); what was padding is cut off."""
    if is_symbolic(size):
        places = stripe_places(size, width, vertical, x.device)
        return x.flatten(0, 2).unflatten(0, (batch, -1)).index_select(1, places)
    side = size[1 if vertical else 0]
    count, front = count_cells(side, width), missing(side, width) // 2
    x = x.unflatten(0, (batch, count))
    if vertical:
        x = x.transpose(1, 2).flatten(2, 3)  # (B, H, W', C)
        return x[:, :, front : front + side].flatten(1, 2)
    return x.flatten(1, 2)[:, front : front + side].flatten(1, 2)


def stripe_sources(size: Pair, width: int, vertical: bool, device: torch.device) -> Tensor:
    """The token at each place of each stripe, N for padding."""
    high, wide = size
    side = wide if vertical else high
    padded, front = count_cells(side, width) * width, missing(side, width) // 2
    place = numbers(padded * (high if vertical else wide), device)
    if vertical:
        group, within = divide(place, high * width)
        row, within = divide(within, width)
        at = column = group * width + within - front
    else:
        row, column = divide(place, wide)
        at = row = row - front
    return (row * wide + column).masked_fill((at < 0) | (at >= side), high * wide)


def stripe_places(size: Pair, width: int, vertical: bool, device: torch.device) -> Tensor:
    """The place of each token (N) in the list of stripes."""
    high, wide = size
    front = missing(wide if vertical else high, width) // 2
    token = numbers(high * wide, device)
    if not vertical:
        return token + front * wide
    row, column = divide(token, wide)
    group, within = divide(column + front, width)
    return group * (high * width) + row * width + within
