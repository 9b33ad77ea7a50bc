"""AFT-conv: an average of the values by key and relative place, gated by each token.

Letters: see ``agent_attention.mixers.agent``; s is the side of the kernel, t' runs over the keys.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.compute.kernel_average import kernel_average
from agent_attention.compute.kernel_bands import gated_average
from agent_attention.compute.numerics import bounded, full_precision, without_autocast
from agent_attention.layers import init_table
from agent_attention.mixers.base import Mixer


class AFTConv(Mixer):
    """y_t = sigmoid(q_t) ⊙ Σ exp(k_t' + ŵ_t'-t) v_t' / Σ exp(k_t' + ŵ_t'-t), in each head.

    Attention Free Transformer, arXiv 2105.14103, eq. 6 and 8. A head has one key a token. ŵ is a
    learned kernel of s x s places around the token, and 0 beyond; it is normalised to
    gain * (w - mean w) / std w + shift. Training starts as AFT-simple: gain and shift are 0.

    Args:
        dim: channels C.
        num_heads: heads h; as many as channels is the best that is published.
        kernel: s, odd.
        shared: further arguments of ``Mixer``; there is no joint projection.

    Raises:
        ValueError: if the kernel is even or smaller than 3.
    """

    takes_projections = False  # keys have one channel a head

    def __init__(self, dim: int, num_heads: int = 1, kernel: int = 7, **shared: Any) -> None:
        if kernel < 3 or not kernel % 2:
            raise ValueError(f"kernel must be an odd number from 3 on, got {kernel}")
        super().__init__(dim, num_heads, **{**shared, "joint_qkv": False})
        self.place_bias = init_table(num_heads, kernel, kernel)
        self.place_gain = nn.Parameter(torch.zeros(num_heads, 1, 1))
        self.place_shift = nn.Parameter(torch.zeros(num_heads, 1, 1))

    def add_projections(self, dim: int, qkv_bias: bool) -> None:
        """``q``, ``k``, ``v`` and ``proj``; a bias of keys would cancel."""
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.k = nn.Linear(dim, self.num_heads, bias=False)
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor, size: Pair) -> Sequence[Tensor]:
        """Queries (B, N, C), keys (B, N, h) and values (B, N, C) of tokens (B, N, C)."""
        return self.q(x), self.k(x), self.v(x)

    def projections(self) -> list[nn.Linear]:
        """The linear layers that ``project`` calls, in order."""
        return [self.q, self.k, self.v]

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above, of what ``project`` gives."""
        gate, key, value = full_precision(q, k, v)
        with without_autocast(q):
            value, scale = bounded(value)
            y = gate.sigmoid() * kernel_average(self.place(), key, value, size) * scale
        return self.add_detail(y.to(q.dtype), v, size)

    def mix_in_chunks(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor | None:
        """The same by an executor."""
        out = gated_average(self.place(), q, k, v, size)
        return None if out is None else self.add_detail(out, v, size)

    def place(self) -> Tensor:
        """ŵ (h, s, s)."""
        w, gain, shift = full_precision(self.place_bias, self.place_gain, self.place_shift)
        variance, mean = torch.var_mean(w, (1, 2), correction=0, keepdim=True)
        return gain * (w - mean) * (variance + 1e-6).rsqrt() + shift
