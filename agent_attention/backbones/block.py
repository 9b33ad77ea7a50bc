"""A transformer block. Shape letters: see ``agent_attention.mixers.agent``."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.compute.guard import define, has_defined
from agent_attention.compute.norm_mlp import add_norm_mlp
from agent_attention.compute.norm_project import add_projected, can_project, norm_project
from agent_attention.layers import DropPath, Mlp
from agent_attention.mixers import build_mixer
from agent_attention.mixers.base import Mixer


class Block(nn.Module):
    """Pre-norm transformer block: x + attention, then x + MLP, each with stochastic depth.

    Args:
        dim: channels C.
        attn: a module that maps tokens (B, N, C) and the map's size to tokens (B, N, C); None in a
            block that writes a ``mix`` of its own.
        mlp_dim: hidden channels of the MLP.
        drop: dropout rate in the MLP.
        drop_path: stochastic depth rate.
        eps: of both LayerNorms.
    """

    def __init__(
        self,
        dim: int,
        attn: nn.Module | None,
        mlp_dim: int,
        drop: float,
        drop_path: float,
        eps: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = attn
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_dim, drop)

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) of a map of ``size`` (H, W) -> tokens (B, N, C)."""
        mixed = self.add_mixed(x, size) if has_defined(self, Block, "mix") else None
        x = x + self.drop_path(self.mix(x, size)) if mixed is None else mixed
        fed = self.add_fed(x) if has_defined(self, Block, "feed") else None
        return x + self.drop_path(self.feed(x, size)) if fed is None else fed

    def mix(self, x: Tensor, size: Pair) -> Tensor:
        """What tokens (B, N, C) get from each other."""
        assert self.attn is not None
        out: Tensor = self.attn(self.norm1(x), size)
        return out

    def feed(self, x: Tensor, size: Pair) -> Tensor:
        """What each of the tokens (B, N, C) makes of itself."""
        out: Tensor = self.mlp(self.norm2(x))
        return out

    def add_mixed(self, x: Tensor, size: Pair) -> Tensor | None:
        """``x`` and what ``mix`` gives, by executors; None where they may not be used."""
        attn = self.attn
        if not isinstance(attn, Mixer):
            return None
        own = type(attn)
        if own.forward is not Mixer.forward or own.project is not Mixer.project:
            return None
        layers = attn.projections()
        if not can_project(
            x, self.norm1, layers, (attn, attn.proj, attn.proj_drop), self.drop_path
        ):
            return None
        x, *projected = norm_project(self.norm1, layers, x)
        mixed = attn.mix_by_executor(projected, size)
        return add_projected(x, attn.proj, self.drop_path.factor(x), mixed)

    def add_fed(self, x: Tensor) -> Tensor | None:
        """``x`` and what ``feed`` gives, by an executor; None where it may not be used."""
        return add_norm_mlp(self.norm2, self.mlp, self.drop_path, x)


define(Block, "mix", "feed")


def build_blocks(
    mixers: Sequence[Any],
    dim: int,
    num_heads: int,
    mlp_dim: int,
    drop: float,
    drop_paths: Iterator[float],
    eps: float,
    window: int,
    block: type[Block] = Block,
    **options: Any,
) -> nn.ModuleList:
    """The blocks of a stage, with a mixer of ``MIXERS`` each.

    Args:
        mixers: names, or dicts with options.
        dim: channels C.
        num_heads: heads h.
        mlp_dim: hidden channels of the MLPs.
        drop: dropout rate after projections and MLP layers.
        drop_paths: stochastic depth rates, one of which is taken for each block.
        eps: of the LayerNorms.
        window: M of mixers that have windows; those of odd blocks are shifted by half of it.
        block: class of the blocks.
        options: further options of the mixers, see ``build_mixer``.
    """
    blocks = nn.ModuleList()
    for j, each in enumerate(mixers):
        shift = window // 2 * (j % 2)
        place = {"proj_drop": drop, "window": window, "shift": shift, **options}
        mixer = build_mixer(each, dim, num_heads, **place)
        blocks.append(block(dim, mixer, mlp_dim, drop, next(drop_paths), eps))
    return blocks
