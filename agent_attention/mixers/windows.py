"""Swin's shifted-window softmax attention. Shape letters: see ``agent_attention.mixers.agent``.

M is the side of a window, G the number of windows of one image.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.arguments import Pair, check_heads
from agent_attention.compute.size_cache import BySize
from agent_attention.layers import init_table, is_open, join_heads, pad_map

_APART = -100.0  # logit between pixels that the shift brought into one window from afar


class WindowAttention(nn.Module):
    """Softmax attention within windows of M x M pixels (Swin, arXiv 2103.14030, section 3.2).

    Maps are padded right and bottom to a multiple of M. With a shift, windows are cut from the map
    rolled by that many pixels, and pixels that are not neighbours do not attend to each other.

    Args:
        dim: channels C; a multiple of ``num_heads``.
        num_heads: heads h.
        window: M.
        shift: pixels the windows are shifted by, 0 for none.
        qkv_bias: learn a bias in the query, key and value projections.
        attn_drop: dropout rate on the attention map.
        proj_drop: dropout rate after the output projection.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: int,
        shift: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.window = window
        self.shift = shift
        self.attn_drop = attn_drop
        self.relative_position_bias_table = init_table((2 * window - 1) ** 2, num_heads)
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.by_size = BySize()

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) of a map of ``size`` (H, W) -> tokens (B, N, C)."""
        if is_open(size):
            return self.proj_drop(self._attend_by_index(x, size))
        height, width = size
        x = pad_map(x.unflatten(1, (height, width)), self.window)  # (B, H', W', C)
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        padded = (x.shape[1], x.shape[2])
        x = merge_windows(self.attend(split_windows(x, self.window), padded), padded, self.window)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        x = x[:, :height, :width].flatten(1, 2)  # (B, N, C)
        return self.proj_drop(x)

    def attend(self, x: Tensor, padded: Pair) -> Tensor:
        """Projections and attention within windows: (B, G, M*M, C) -> (B, G, M*M, C)."""
        make = functools.partial(self._bias, padded)
        (bias,) = self.by_size(padded, [self.relative_position_bias_table], make)
        bias = bias.expand(x.shape[0], -1, -1, -1, -1).flatten(0, 1)
        return self._attend(x.flatten(0, 1), bias).unflatten(0, x.shape[:2])

    def _attend(self, x: Tensor, bias: Tensor) -> Tensor:
        """The same of windows (B*G, M*M, C) with a bias (B*G, h, M*M, M*M)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B*G, M*M, 3, h, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B*G, h, M*M, d)
        dropout = self.attn_drop if self.training else 0.0
        bias = bias.to(q.dtype)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return self.proj(join_heads(out))

    def _attend_by_index(self, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) -> (B, N, C) of a size that a recorded graph leaves open.

        No tensor has an axis of windows, which for small maps would be a special case of length 1.
        """
        area, batch = self.window**2, x.shape[0]
        there, back, regions = window_places(size, self.window, self.shift, x.device)
        windows = F.pad(x, (0, 0, 0, 1)).index_select(1, there)  # (B, G*M*M, C)
        windows = windows.flatten(0, 1).unflatten(0, (-1, area))  # (B*G, M*M, C)
        regions = regions.repeat(batch).unflatten(0, (-1, area))  # (B*G, M*M)
        apart = (regions.unsqueeze(2) != regions.unsqueeze(1)).to(x.dtype) * _APART
        out = self._attend(windows, self._table() + apart.unsqueeze(1))
        return out.flatten(0, 1).unflatten(0, (batch, -1)).index_select(1, back)

    def _bias(self, padded: Pair) -> tuple[Tensor]:
        """Relative position bias, with the mask of the shift: (G, h, M*M, M*M)."""
        bias = self._table()
        windows = (padded[0] // self.window) * (padded[1] // self.window)
        if not self.shift:
            return (bias.expand(windows, -1, -1, -1),)
        mask = kept_mask(padded, self.window, self.shift, bias.device)  # (G, M*M, M*M)
        return (bias + mask.unsqueeze(1).to(bias.dtype),)

    def _table(self) -> Tensor:
        """Relative position bias of any window: (h, M*M, M*M)."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, window={self.window}, shift={self.shift}"


def split_windows(x: Tensor, window: int) -> Tensor:
    """A map (B, H', W', C) as windows (B, G, M*M, C), row-major in both."""
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))  # (B, H'/M, M, W'/M, M, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def merge_windows(x: Tensor, size: Pair, window: int) -> Tensor:
    """Windows (B, G, M*M, C) as a map (B, H', W', C) of ``size``."""
    grid = (size[0] // window, size[1] // window)
    x = x.unflatten(2, (window, window)).unflatten(1, grid)  # (B, H'/M, W'/M, M, M, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def window_places(size: Pair, window: int, shift: int, device: torch.device) -> tuple[Tensor, ...]:
    """Padding, rolling and splitting into windows as places in a list of tokens.

    Returns:
        The token at each place of each window (G*M*M), N for padding; the place of each token (N);
        and a number (G*M*M) that differs for pixels that the shift has brought together.
    """
    (height, width), area = size, window**2
    # windows; of positive numbers, since ONNX rounds quotients to zero
    down, across = ((side + window - 1) // window for side in size)
    high, wide = down * window, across * window
    group, pixel = _divmod(torch.arange(down * across * area, device=device), area)
    (upper, left), (row, column) = _divmod(group, across), _divmod(pixel, window)
    row, column = upper * window + row, left * window + column  # of the map as it is rolled
    bands = [
        (at >= side - window).long() + (at >= side - shift).long()
        for at, side in ((row, high), (column, wide))
    ]
    row, column = _divmod(row + shift, high)[1], _divmod(column + shift, wide)[1]
    padding = (row >= height) | (column >= width)
    there = (row * width + column).masked_fill(padding, height * width)

    row, column = _divmod(torch.arange(height * width, device=device), width)
    row, column = _divmod(row + high - shift, high)[1], _divmod(column + wide - shift, wide)[1]
    (upper, row), (left, column) = _divmod(row, window), _divmod(column, window)
    back = (upper * across + left) * area + row * window + column
    return there, back, bands[0] * 3 + bands[1] if shift else torch.zeros_like(there)


def _divmod(x: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and rest without the operator ``%``, which ONNX lacks for open sizes."""
    quotient = x // by
    return quotient, x - quotient * by


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of pixels of a window: (M*M, M*M) int64."""
    axis = torch.arange(window)
    rows, columns = (t.flatten() for t in torch.meshgrid(axis, axis, indexing="ij"))
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


@functools.lru_cache(maxsize=64)  # one entry a map size and device
def shift_mask(size: Pair, window: int, shift: int, device: torch.device) -> Tensor:
    """What keeps apart the pixels a shift brings together: (G, M*M, M*M), 0 or -100."""
    with torch.inference_mode(False):  # the cached mask must serve training as well
        region = torch.zeros(size, device=device)
        for axis in range(2):
            index = torch.arange(size[axis], device=device)
            band = (index >= size[axis] - window).int() + (index >= size[axis] - shift).int()
            region = region + (band[:, None] * 3 if axis == 0 else band[None, :])
        regions = split_windows(region[None, :, :, None], window)[0, :, :, 0]  # (G, M*M)
        return (regions[:, :, None] != regions[:, None, :]).float() * _APART


def kept_mask(size: Pair, window: int, shift: int, device: torch.device) -> Tensor:
    """``shift_mask``, unless a graph is recorded: a mask made then has no numbers to keep."""
    if torch.compiler.is_compiling():
        return shift_mask.__wrapped__(size, window, shift, device)
    mask = shift_mask(size, window, shift, device)
    if type(mask) is not Tensor:
        shift_mask.cache_clear()
    return mask
