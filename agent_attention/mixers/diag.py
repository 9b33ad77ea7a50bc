"""Attention within the windows of a map, softmax or linear.

Letters: see ``agent_attention.mixers.agent``; M is the side of a window.
"""

from typing import Any

import torch
from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.compute.numerics import full_precision, without_autocast
from agent_attention.compute.rms import rms_norm, split_scales
from agent_attention.compute.symbolic import join_heads
from agent_attention.compute.window_cut import cut_windows, join_windows, padding_mask
from agent_attention.mixers.base import Mixer


class DiagAttention(Mixer):
    """O = σ(Q Kᵀ / √d) V in windows of M x M pixels, or the same with relu for σ, then rms.

    TransNormer's DiagAttention (arXiv 2210.10340, section 4.3), whose blocks of consecutive tokens
    are windows here. Windows at the right and at the bottom hold what is left of the map. rms is
    that of ``NormAttention``.

    Args:
        dim: channels C.
        num_heads: heads h.
        window: M.
        kernel: 'softmax' or 'relu'.
        shared: further arguments of ``Mixer``.

    Raises:
        ValueError: on another kernel.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 1,
        window: int = 8,
        kernel: str = "softmax",
        **shared: Any,
    ) -> None:
        if kernel not in ("softmax", "relu"):
            raise ValueError(f"kernel must be 'softmax' or 'relu', got {kernel!r}")
        super().__init__(dim, num_heads, **shared)
        self.window = window
        self.kernel = kernel

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above, of queries, keys and values (B, N, C)."""
        cut = (size, self.window, 0)
        weigh = self.attend_softmax if self.kernel == "softmax" else self.attend_relu
        q_w, k_w, v_w = (cut_windows(x, *cut) for x in (q, k, v))
        out = join_windows(weigh(q_w, k_w, v_w, size), *cut, q.shape[0])
        return self.add_detail(out, v, size)

    def attend_softmax(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """σ(Q Kᵀ / √d) V of windows (B*G, M*M, C), in which padding is no key."""
        return self.attend(q, k, v, padding_mask(size, self.window, q.shape[0], q.device))

    def attend_relu(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """rms(relu(Q Kᵀ / √d) V) of windows (B*G, M*M, C), in which padding has scores of 0."""
        parts = full_precision(q, k, v)
        with without_autocast(q):
            parts, scale = split_scales(*parts)
            query, key, value = (self.split_heads(x) for x in parts)
            scores = torch.relu(query @ key.mT * query.shape[-1] ** -0.5)
            return rms_norm(join_heads(scores @ value), scale).to(q.dtype)
