"""Swin's shifted-window softmax attention. Shape letters: see ``agent_attention.attention``.

M is the side of a window, G the number of windows of one image.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.by_size import BySize
from agent_attention.checks import Pair, check_heads
from agent_attention.layers import init_table

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
        height, width = size
        pad = (0, 0, 0, -width % self.window, 0, -height % self.window)
        x = F.pad(x.unflatten(1, (height, width)), pad)  # (B, H', W', C)
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
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, G, M*M, 3, h, d)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(1, 2)  # each (B*G, h, M*M, d)
        make = functools.partial(self._bias, padded)
        (bias,) = self.by_size(padded, [self.relative_position_bias_table], make)
        bias = bias.to(q.dtype).expand(x.shape[0], -1, -1, -1, -1).flatten(0, 1)
        dropout = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return self.proj(out.transpose(1, 2).flatten(2)).unflatten(0, x.shape[:2])

    def _bias(self, padded: Pair) -> tuple[Tensor]:
        """Relative position bias, with the mask of the shift: (G, h, M*M, M*M)."""
        table = self.relative_position_bias_table[self.relative_position_index]  # (M*M, M*M, h)
        windows = (padded[0] // self.window) * (padded[1] // self.window)
        bias = table.permute(2, 0, 1)
        if not self.shift:
            return (bias.expand(windows, -1, -1, -1),)
        mask = kept_mask(padded, self.window, self.shift, table.device)  # (G, M*M, M*M)
        return (bias + mask.unsqueeze(1).to(bias.dtype),)

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
