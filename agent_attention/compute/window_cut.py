"""How a map is cut into shifted windows, and how windows become a map again.

M is the side of a window, G the number of windows of one image. Maps are padded with zeros right
and bottom to multiples of M, then rolled by the shift. With a symbolic size the same is done by
index: no tensor may then have an axis of windows, which for small maps would be of length 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.operators import as_operator, is_compiling, linear_operators
from agent_attention.compute.size_cache import pure
from agent_attention.compute.symbolic import count_cells, divide, is_symbolic, pad_ends

_APART = -100.0  # score between pixels that the shift brought into one window from afar


def shift_of_large(shift: int, size: Pair, window: int) -> int:
    """The shift of maps whose sides are both longer than a window; 0 of others."""
    if not is_symbolic(size):
        return shift if min(size) > window else 0
    larger = torch.sym_max(torch.sym_min(*size) - window, 0)
    symbolic: int = shift * torch.sym_min(larger, 1)
    return symbolic


def cut_windows(x: Tensor, size: Pair, window: int, shift: int) -> Tensor:
    """Tokens (B, N, C) of a map -> windows (B*G, M*M, C), row-major in both."""
    if is_compiling():
        return _cut(x, (x.shape[0], *size, window, shift))
    if is_symbolic(size):
        sources = window_sources(size, window, shift, x.device)
        x = F.pad(x, (0, 0, 0, 1)).index_select(1, sources)  # (B, G*M*M, C)
        return x.flatten(0, 1).unflatten(0, (-1, window**2))
    x = pad_ends(x.unflatten(1, tuple(size)), window, (1, 2))  # (B, H', W', C)
    if shift:
        x = x.roll((-shift, -shift), dims=(1, 2))
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, H'/M, M, W'/M, M, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def join_windows(x: Tensor, size: Pair, window: int, shift: int, batch: int) -> Tensor:
    """Windows (B*G, M*M, C) -> tokens (B, N, C); what was padding is cut off."""
    if is_compiling():
        return _join(x, (batch, *size, window, shift))
    if is_symbolic(size):
        places = window_places(size, window, shift, x.device)
        return x.flatten(0, 1).unflatten(0, (batch, -1)).index_select(1, places)
    grid = tuple(count_cells(side, window) for side in size)
    x = x.unflatten(0, (batch, grid[0] * grid[1]))
    x = x.unflatten(2, (window, window)).unflatten(1, grid)  # (B, H'/M, W'/M, M, M, C)
    x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)  # (B, H', W', C)
    if shift:
        x = x.roll((shift, shift), dims=(1, 2))
    return x[:, : size[0], : size[1]].flatten(1, 2)


_cut, _join = linear_operators(  # numbers: B, H, W, M, shift
    "cut_windows",
    lambda x, n: cut_windows(x, (n[1], n[2]), n[3], n[4]),
    lambda x, n: (n[0] * count_windows(n[1:3], n[3]), n[3] ** 2, x.shape[2]),
    lambda x, n: join_windows(x, (n[1], n[2]), n[3], n[4], n[0]),
    lambda x, n: (n[0], n[1] * n[2], x.shape[2]),
)


def count_windows(size: Sequence[int], window: int) -> int:
    """G, of a map (H, W)."""
    return count_cells(size[0], window) * count_cells(size[1], window)


def repeat_windows(x: Tensor, count: int) -> Tensor:
    """(G, ...), the same for each image, as (B*G, ...) for ``count`` = B*G windows.

    Also (G*M*M), the pixels of windows, for their ``count``.
    """
    if is_symbolic((count, x.shape[0])):
        return x.index_select(0, divide(torch.arange(count, device=x.device), x.shape[0])[1])
    return x.expand(count // len(x), *x.shape).flatten(0, 1)


@pure
@as_operator
def shift_mask(
    size: Sequence[int], window: int, shift: int, device: torch.device, count: int | None = None
) -> Tensor:
    """What keeps apart the pixels that a shift brings together: (G, M*M, M*M), 0 or -100.

    With ``count`` = B*G of all windows of a batch, (B*G, M*M, M*M).
    """
    regions = window_regions(size, window, shift, device)
    if count is not None:
        regions = repeat_windows(regions, count * window**2)
    regions = regions.unflatten(0, (-1, window**2))
    return (regions[:, :, None] != regions[:, None, :]).float() * _APART


def padding_mask(size: Pair, window: int, count: int, device: torch.device) -> Tensor | None:
    """What keeps padding out of ``count`` = B*G windows: (B*G, 1, 1, M*M), 0 or -inf."""
    if not is_symbolic(size) and not any(side % window for side in size):
        return None
    return _padding_mask(size, window, count, device)


@as_operator
def _padding_mask(size: Sequence[int], window: int, count: int, device: torch.device) -> Tensor:
    padding = window_sources(size, window, 0, device) == size[0] * size[1]
    padding = repeat_windows(padding, count * window**2)  # (B*G*M*M)
    mask = torch.zeros_like(padding, dtype=torch.float32).masked_fill(padding, -torch.inf)
    return mask.unflatten(0, (-1, window**2))[:, None, None]


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of pixels of a window: (M*M, M*M) int64."""
    axis = torch.arange(window)
    rows, columns = (t.flatten() for t in torch.meshgrid(axis, axis, indexing="ij"))
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def window_sources(size: Sequence[int], window: int, shift: int, device: torch.device) -> Tensor:
    """The token at each place of each window (G*M*M), N for padding.

    A map of 2 x 3 in windows of 2, without a shift, is padded to 2 x 4::

        tokens  0 1 2      windows  0 1 | 2 .      sources = 0 1 3 4, 2 6 5 6   (6 is padding)
                3 4 5               3 4 | 5 .      places  = 0 1 4 2 3 6
    """
    (height, width), (high, wide) = size, _padded(size, window)
    row, column = _rolled(size, window, device)
    row, column = divide(row + shift, high)[1], divide(column + shift, wide)[1]
    padding = (row >= height) | (column >= width)
    return (row * width + column).masked_fill(padding, height * width)


def window_places(size: Pair, window: int, shift: int, device: torch.device) -> Tensor:
    """The place of each token (N) in the list of windows (G*M*M)."""
    (height, width), (high, wide) = size, _padded(size, window)
    row, column = divide(torch.arange(height * width, device=device), width)
    row, column = divide(row + high - shift, high)[1], divide(column + wide - shift, wide)[1]
    (upper, row), (left, column) = divide(row, window), divide(column, window)
    return (upper * (wide // window) + left) * window**2 + row * window + column


def window_regions(size: Sequence[int], window: int, shift: int, device: torch.device) -> Tensor:
    """A number (G*M*M) that differs for pixels that the shift has brought together."""
    bands = [
        (at >= side - window).long() + (at >= side - shift).long()
        for at, side in zip(_rolled(size, window, device), _padded(size, window), strict=True)
    ]
    return bands[0] * 3 + bands[1]


def _padded(size: Sequence[int], window: int) -> Pair:
    """The size of a map of whole windows."""
    return count_cells(size[0], window) * window, count_cells(size[1], window) * window


def _rolled(size: Sequence[int], window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column, of the padded and rolled map, of each place of each window (G*M*M)."""
    down, across = (count_cells(side, window) for side in size)
    group, pixel = divide(torch.arange(down * across * window**2, device=device), window**2)
    (upper, left), (row, column) = divide(group, across), divide(pixel, window)
    return upper * window + row, left * window + column
