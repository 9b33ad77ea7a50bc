"""PVT's softmax attention with spatial reduction.

Shape letters: see ``agent_attention.mixers.agent``.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.arguments import Pair, check_heads
from agent_attention.layers import join_heads
from agent_attention.mixers.agent import to_map, to_tokens


class SpatialReductionAttention(nn.Module):
    """Softmax attention to a map reduced R times in height and width (PVT, arXiv 2102.12122).

    Args:
        dim: channels C; a multiple of ``num_heads``.
        num_heads: heads h.
        sr_ratio: R; 1 is plain softmax attention.
        qkv_bias: learn a bias in the query, key and value projections.
        attn_drop: dropout rate on the attention map.
        proj_drop: dropout rate after the output projection.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        sr_ratio: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.sr_ratio = sr_ratio
        if sr_ratio > 1:
            self.sr = nn.Conv2d(dim, dim, kernel_size=sr_ratio, stride=sr_ratio)
            self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) of a map of ``size`` (H, W) -> tokens (B, N, C)."""
        k, v = self.kv(self.reduce(x, size)).chunk(2, dim=-1)  # (B, N/R^2, C)
        q, k, v = (
            t.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (self.q(x), k, v)
        )  # (B, h, N or N/R^2, d)
        dropout = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.proj_drop(self.proj(join_heads(out)))

    def reduce(self, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) -> (B, N/R^2, C)."""
        if self.sr_ratio == 1:
            return x
        return self.norm(to_tokens(self.sr(to_map(x, size))))
