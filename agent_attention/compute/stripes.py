"""How a map is cut into stripes of some columns or rows, and how stripes become a map again.

G is the number of stripes of one image. With a symbolic size the same is done by index, see
``window_cut``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.operators import is_compiling, linear_operators
from agent_attention.compute.symbolic import count_cells, divide, is_symbolic, missing


def cut_stripes(tensors: Sequence[Tensor], size: Pair, width: int, vertical: bool) -> list[Tensor]:
    """Tokens (B, N, C) of a map (H, W) -> stripes (B*G, H, M, C), or (B*G, M, W, C), of each."""
    stripe = (size[0], width) if vertical else (width, size[1])
    if is_compiling():
        numbers = (tensors[0].shape[0], *size, width, int(vertical))
        return [_cut_one(x, numbers).unflatten(1, stripe) for x in tensors]
    if not is_symbolic(size):
        return [_cut(x, size, width, vertical) for x in tensors]
    sources = stripe_sources(size, width, vertical, tensors[0].device)
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
    if is_compiling():
        return _join_one(x.flatten(1, 2), (batch, *size, width, int(vertical)))
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


def _stripe(numbers: Sequence[int]) -> tuple[int, int, int]:
    """Stripes of a map, and rows and columns of one."""
    _, height, wide, width, vertical = numbers
    if vertical:
        return count_cells(wide, width), height, width
    return count_cells(height, width), width, wide


_cut_one, _join_one = linear_operators(  # numbers: B, H, W, M, whether vertical
    "cut_stripes",
    lambda x, n: _cut(x, (n[1], n[2]), n[3], bool(n[4])).flatten(1, 2),
    lambda x, n: (n[0] * _stripe(n)[0], _stripe(n)[1] * _stripe(n)[2], x.shape[2]),
    lambda x, n: join_stripes(x.unflatten(1, _stripe(n)[1:]), (n[1], n[2]), n[3], bool(n[4]), n[0]),
    lambda x, n: (n[0], n[1] * n[2], x.shape[2]),
)


def stripe_sources(size: Pair, width: int, vertical: bool, device: torch.device) -> Tensor:
    """The token at each place of each stripe, N for padding."""
    high, wide = size
    side = wide if vertical else high
    padded, front = count_cells(side, width) * width, missing(side, width) // 2
    place = torch.arange(padded * (high if vertical else wide), device=device)
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
    token = torch.arange(high * wide, device=device)
    if not vertical:
        return token + front * wide
    row, column = divide(token, wide)
    group, within = divide(column + front, width)
    return group * (high * width) + row * width + within
