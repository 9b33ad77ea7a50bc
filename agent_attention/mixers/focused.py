"""FLatten's focused linear attention.

Letters: see ``agent_attention.mixers.agent``; R is the ratio by which keys may be reduced.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.focused import convolve_heads, focus, linear_attention
from agent_attention.compute.linear import Inputs, attend_linearly
from agent_attention.compute.linear_forms import FocusedForm
from agent_attention.compute.numerics import full_precision, without_autocast
from agent_attention.compute.symbolic import resize_tokens
from agent_attention.mixers.base import Mixer, to_map, to_tokens


class FocusedAttention(Mixer):
    """O = φ(Q) (φ(K)ᵀ V) / (φ(Q) Σ φ(K)) + DWC(V), φ(x) = ‖u‖ uᵖ / ‖uᵖ‖, u = relu(x) / σ.

    FLatten Transformer, arXiv 2308.00442, section 4. φ focuses: it turns a token towards its
    largest channels, and its norm is kept. Both norms are over all channels, those of all heads.

    Args:
        dim: channels C.
        num_heads: heads h.
        table_shape: map (Hs, Ws) that the positions of keys are learned for.
        factor: p.
        kernel: side of the depth-wise convolution DWC, which is the same in all heads.
        reduction: R, by which keys and values are reduced in height and width.
        shared: further arguments of ``Mixer``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 1,
        table_shape: Pair = (14, 14),
        factor: int = 3,
        kernel: int = 5,
        reduction: int = 1,
        **shared: Any,
    ) -> None:
        super().__init__(dim, num_heads, **shared)
        self.factor = factor
        self.reduction = reduction
        self.table_shape = (table_shape[0] // reduction, table_shape[1] // reduction)
        count = self.table_shape[0] * self.table_shape[1]
        self.scale = nn.Parameter(torch.zeros(1, 1, dim))
        self.positional_encoding = nn.Parameter(torch.zeros(1, count, dim))
        if reduction > 1:
            self.sr = nn.Conv2d(dim, dim, kernel_size=reduction, stride=reduction)
            self.norm = nn.LayerNorm(dim, eps=1e-5)
        d = dim // num_heads
        self.dwc = nn.Conv2d(d, d, kernel_size=kernel, padding=kernel // 2, groups=d)

    def project(self, x: Tensor, size: Pair) -> Sequence[Tensor]:
        """Queries (B, N, C), and keys and values (B, N/R², C)."""
        if self.reduction == 1:
            return super().project(x, size)
        reduced = self.norm(to_tokens(self.sr(to_map(x, size))))
        return self.q(x), *self.kv(reduced).chunk(2, -1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above, of queries (B, N, C), keys and values (B, N/R², C)."""
        query, key, value, scale = full_precision(q, k + self.positions(size), v, self.scale)
        with without_autocast(q):
            sigma = F.softplus(scale)
            (query, of_q), (key, of_k) = (focus(x, sigma, self.factor) for x in (query, key))
            out = linear_attention(query, key, value, of_q, of_k, self.num_heads)
        return out.to(q.dtype) + self.detail(v, size)

    def mix_in_chunks(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor | None:
        """The same by an executor."""
        sigma = F.softplus(self.scale).flatten()
        inputs = Inputs(q, k, v, self.positions(size), sigma)
        out = attend_linearly(FocusedForm(self.factor), self.num_heads, inputs)
        return None if out is None else out + self.detail(v, size)

    def positions(self, size: Pair) -> Tensor:
        """What is added to the keys: (1, N/R², C)."""
        reduced = (size[0] // self.reduction, size[1] // self.reduction)
        return resize_tokens(self.positional_encoding, self.table_shape, reduced, "bicubic")

    def detail(self, v: Tensor, size: Pair) -> Tensor:
        """DWC(V) (B, N, C): each head convolved with the same kernels."""
        count = size[0] * size[1]
        if v.shape[1] != count:  # as published: along the row of tokens
            v = F.interpolate(v.mT, size=count, mode="linear", align_corners=False).mT
        return to_tokens(convolve_heads(self.dwc, to_map(v, size), self.num_heads))
