"""Swin's shifted-window softmax attention. Letters: see ``agent_attention.mixers.agent``.

M is the side of a window, G the number of windows of one image.
"""

from typing import Any

from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.compute.size_cache import cached
from agent_attention.compute.symbolic import is_symbolic
from agent_attention.compute.window_cut import (
    cut_windows,
    join_windows,
    relative_position_index,
    repeat_windows,
    shift_mask,
    shift_of_large,
)
from agent_attention.layers import init_table
from agent_attention.mixers.base import Mixer


class WindowAttention(Mixer):
    """O = σ(Q Kᵀ / √d + B) V within windows of M x M pixels (Swin, arXiv 2103.14030, section 3.2).

    Maps are padded right and bottom to a multiple of M. With a shift, windows are cut from the map
    rolled by that many pixels, and pixels that are not neighbours do not attend to each other.

    Args:
        window: M.
        shift: pixels the windows are shifted by, 0 for none.
        shift_small: shift also where a side of the map is no longer than M.
        shared: further arguments of ``Mixer``; the projection is joint.
    """

    takes_projections = False  # padding comes before them
    relative_position_index: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: int = 7,
        shift: int = 0,
        shift_small: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(dim, num_heads, **{**shared, "joint_qkv": True})
        self.window = window
        self.shift = shift
        self.shift_small = shift_small
        self.relative_position_bias_table = init_table((2 * window - 1) ** 2, num_heads)
        self.register_buffer("relative_position_index", relative_position_index(window))

    def forward(self, x: Tensor, size: Pair) -> Tensor:  # type: ignore[override]
        """Tokens (B, N, C) of a map of ``size`` (H, W) -> tokens (B, N, C)."""
        cut = (size, self.window, self.shift_of(size))
        return join_windows(super().forward(cut_windows(x, *cut), size), *cut, x.shape[0])

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above, of windows (B*G, M*M, C)."""
        return self.attend(q, k, v, self.bias(size, q.shape[0]))

    def bias(self, size: Pair, count: int) -> Tensor:
        """B of ``count`` = B*G windows, with what a shift forbids: (B*G, h, M*M, M*M)."""
        shift = self.shift_of(size)
        if not is_symbolic((shift,)) and not shift:
            return self._by_place()

        def with_mask(count: int | None = None) -> tuple[Tensor]:
            table = self._by_place()
            mask = shift_mask((size[0], size[1]), self.window, shift, table.device, count)
            return (table + mask.unsqueeze(1).to(table.dtype),)  # (G or B*G, h, M*M, M*M)

        if is_symbolic(size):  # G may be 1
            return with_mask(count)[0]
        key = (tuple(size), self.window, shift)
        (bias,) = cached(with_mask, [self.relative_position_bias_table], key)
        return repeat_windows(bias, count)

    def shift_of(self, size: Pair) -> int:
        """Pixels that the windows of a map are shifted by."""
        if self.shift_small or not self.shift:
            return self.shift
        return shift_of_large(self.shift, size, self.window)

    def _by_place(self) -> Tensor:
        """Relative position bias of any window: (h, M*M, M*M)."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, window={self.window}, shift={self.shift}"
