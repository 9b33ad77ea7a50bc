"""PVT's softmax attention with spatial reduction. Letters: see ``agent_attention.mixers.agent``."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.mixers.base import Mixer, to_map, to_tokens


class SpatialReductionAttention(Mixer):
    """O = σ(Q Kᵀ / √d) V, with K and V of a map reduced R times in height and width.

    PVT, arXiv 2102.12122, section 3.3.

    Args:
        sr_ratio: R; 1 is plain softmax attention.
        shared: further arguments of ``Mixer``; there is no joint projection.
    """

    takes_projections = False  # keys are reduced before them
    sr: nn.Conv2d
    norm: nn.LayerNorm

    def __init__(self, dim: int, num_heads: int, sr_ratio: int = 1, **shared: Any) -> None:
        layers: dict[str, nn.Module] = {}
        if sr_ratio > 1:
            layers["sr"] = nn.Conv2d(dim, dim, kernel_size=sr_ratio, stride=sr_ratio)
            layers["norm"] = nn.LayerNorm(dim, eps=1e-5)
        super().__init__(dim, num_heads, **{**shared, "joint_qkv": False}, before=layers)
        self.sr_ratio = sr_ratio

    def project(self, x: Tensor, size: Pair) -> Sequence[Tensor]:
        """Queries (B, N, C) of the tokens, keys and values (B, N/R^2, C) of the reduced map."""
        return self.q(x), *self.kv(self.reduce(x, size)).chunk(2, -1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above."""
        return self.attend(q, k, v)

    def reduce(self, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) -> (B, N/R^2, C)."""
        if self.sr_ratio == 1:
            return x
        reduced: Tensor = self.norm(to_tokens(self.sr(to_map(x, size))))
        return reduced
