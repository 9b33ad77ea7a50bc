"""AFT-full: an average of the values by key and place, gated by each token.

Letters: see ``agent_attention.mixers.agent``; r is the rank of w, t a query token, t' a key token.
"""

from typing import Any

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.compute.numerics import bounded, full_precision, without_autocast
from agent_attention.compute.place import average
from agent_attention.compute.symbolic import is_symbolic, join_heads, resize
from agent_attention.mixers.base import Mixer

_MOST = 1 << 14  # tokens: the cost grows with their square


class AFTFull(Mixer):
    """y_t = sigmoid(q_t) ⊙ Σ exp(k_t' + w_tt') ⊙ v_t' / Σ exp(k_t' + w_tt'), sums over t'.

    Attention Free Transformer, arXiv 2105.14103, eq. 2 and 7. There is no product of queries and
    keys: w depends on places alone, w = Uᵀ Z in each head. Other maps than those of
    ``table_shape`` have U and Z resized, which resizes w in both of its places.

    Args:
        dim: channels C.
        num_heads: heads h with a w each; 1 is the published form.
        table_shape: map (Hs, Ws) that U and Z are learned for.
        rank: r.
        shared: further arguments of ``Mixer``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 1,
        table_shape: Pair = (14, 14),
        rank: int = 64,
        **shared: Any,
    ) -> None:
        super().__init__(dim, num_heads, **shared)
        shape = (num_heads, rank, *table_shape)
        self.place_q_bias = nn.Parameter(nn.init.normal_(torch.empty(shape), std=0.1))
        self.place_k_bias = nn.Parameter(nn.init.normal_(torch.empty(shape), std=0.1))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above, of queries, keys and values (B, N, C)."""
        gate, key, value = full_precision(q, k, v)
        with without_autocast(q):
            value, scale = bounded(value)
            mean = self.average(self.split_heads(key), self.split_heads(value), size)
            y = gate.sigmoid() * join_heads(mean) * scale
        return self.add_detail(y.to(q.dtype), v, size)

    def average(self, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The two sums, one divided by the other, of keys and values (B, h, N, d).

        Raises:
            ValueError: if the map has more than 16,384 tokens.
        """
        if not is_symbolic(size) and size[0] * size[1] > _MOST:
            raise ValueError(
                f"aft_full has a cost of N*N, and a map of {size[0]}x{size[1]} has more than "
                f"{_MOST} tokens: use aft_conv, whose cost grows with N"
            )
        return average(*self.places(size), k, v)

    def places(self, size: Pair) -> tuple[Tensor, Tensor]:
        """U and Z for a map: two of (h, r, N)."""
        u, z = full_precision(self.place_q_bias, self.place_k_bias)
        return resize(u, size).flatten(2), resize(z, size).flatten(2)
