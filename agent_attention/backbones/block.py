"""A transformer block. Shape letters: see ``agent_attention.mixers.agent``."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.compute.norm_mlp import norm_mlp
from agent_attention.layers import DropPath, Mlp
from agent_attention.mixers import build_mixer


class Block(nn.Module):
    """Pre-norm transformer block: x + attention, then x + MLP, each with stochastic depth.

    Args:
        dim: channels C.
        attn: a module that maps tokens (B, N, C) and the map's size to tokens (B, N, C).
        mlp_dim: hidden channels of the MLP.
        drop: dropout rate in the MLP.
        drop_path: stochastic depth rate.
        eps: of both LayerNorms.
    """

    def __init__(
        self, dim: int, attn: nn.Module, mlp_dim: int, drop: float, drop_path: float, eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_dim, drop)

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) of a map of ``size`` (H, W) -> tokens (B, N, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(norm_mlp(self.norm2, self.mlp, x))  # mlp(norm2(x))


def build_blocks(
    names: Sequence[str],
    dim: int,
    num_heads: int,
    mlp_dim: int,
    drop: float,
    drop_paths: Iterator[float],
    eps: float,
    window: int,
    **options: Any,
) -> nn.ModuleList:
    """The blocks of a stage, with a mixer of ``MIXERS`` each.

    Args:
        names: of the mixers.
        dim: channels C.
        num_heads: heads h.
        mlp_dim: hidden channels of the MLPs.
        drop: dropout rate after projections and MLP layers.
        drop_paths: stochastic depth rates, one of which is taken for each block.
        eps: of the LayerNorms.
        window: M of mixers that have windows; those of odd blocks are shifted by half of it.
        options: further options of the mixers, see ``build_mixer``.
    """
    blocks = nn.ModuleList()
    for j, name in enumerate(names):
        shift = window // 2 * (j % 2)
        place = {"proj_drop": drop, "window": window, "shift": shift, **options}
        mixer = build_mixer(name, dim, num_heads, **place)
        blocks.append(Block(dim, mixer, mlp_dim, drop, next(drop_paths), eps))
    return blocks
