"""Linear attention without a denominator, normalised instead.

Letters: see ``agent_attention.mixers.agent``.
"""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.linear import Inputs, attend_linearly
from agent_attention.compute.linear_forms import NormForm
from agent_attention.compute.numerics import full_precision, without_autocast
from agent_attention.compute.rms import rms_norm, split_scales
from agent_attention.compute.symbolic import join_heads
from agent_attention.mixers.base import Mixer

KERNELS = {"1+elu": lambda x: F.elu(x) + 1, "elu": F.elu}


class NormAttention(Mixer):
    """O = rms(φ(Q) (φ(K)ᵀ V) / N), with rms(t) = t / √(mean of t² over all C channels + ε).

    TransNormer, arXiv 2210.10340, section 4.2, for tokens without an order: the product of keys
    and values, d x d in each head, is made once. It knows no places, see ``AFTSimple``.

    Args:
        dim: channels C.
        num_heads: heads h.
        kernel: φ, '1+elu' or 'elu'.
        shared: further arguments of ``Mixer``.

    Raises:
        ValueError: on another kernel.
    """

    def __init__(self, dim: int, num_heads: int = 1, kernel: str = "1+elu", **shared: Any) -> None:
        if kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {[*KERNELS]}, got {kernel!r}")
        super().__init__(dim, num_heads, **shared)
        self.kernel = kernel

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above, of queries, keys and values (B, N, C)."""
        phi = KERNELS[self.kernel]
        query, key, value = full_precision(q, k, v)
        with without_autocast(q):
            (query, key, value), scale = split_scales(phi(query), phi(key), value)
            query, key, value = (self.split_heads(x) for x in (query, key, value))
            state = key.mT @ value / k.shape[1]  # (B, h, d, d)
            out = rms_norm(join_heads(query @ state), scale)
        return self.add_detail(out.to(q.dtype), v, size)

    def mix_in_chunks(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor | None:
        """The same by an executor."""
        form = NormForm(plus_one=self.kernel == "1+elu")
        out = attend_linearly(form, self.num_heads, Inputs(q, k, v))
        return None if out is None else self.add_detail(out, v, size)
