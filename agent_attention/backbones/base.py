"""What the backbones share. Shape letters: see ``agent_attention.mixers.agent``."""

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agent_attention.arguments import (
    Pair,
    check_image,
    check_integer,
    check_out_indices,
    check_rate,
)
from agent_attention.backbones.features import FeatureInfo
from agent_attention.compute.norm_mlp import add_mlp_of_norm, mlp_of_norm
from agent_attention.layers import DropPath, Mlp, add_into, in_strides, is_open, may_overwrite
from agent_attention.mixers.agent import AgentAttention

Self = TypeVar("Self", bound="Pyramid")


class Pyramid(nn.Module):
    """Four stages of blocks, each of half the resolution of the one before.

    A backbone defines ``feature_info``, and ``maps``, ``parts`` and ``ignores``, abstract here.

    Args:
        out_indices: stages whose maps are returned; later stages than the last are not built.
        frozen_stages: -1 trains everything; k freezes the stem and the first k stages.
        with_cp: recompute blocks in the backward pass (gradient checkpointing) to save memory.
        rates: dropout and stochastic depth rates, by argument name.
    """

    feature_info: FeatureInfo  # of the maps that ``forward`` returns

    def __init__(
        self,
        out_indices: Sequence[int],
        frozen_stages: int,
        with_cp: bool,
        rates: dict[str, float],
    ) -> None:
        super().__init__()
        self.out_indices = check_out_indices(out_indices)
        self.num_stages = max(self.out_indices) + 1
        check_integer("frozen_stages", frozen_stages, -1, self.num_stages)
        for name, rate in rates.items():
            check_rate(name, rate)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) -> one map (B, C_i, H_i, W_i) for each of ``out_indices``.

        Raises:
            ValueError: if the image has not three channels or is smaller than 32x32 pixels.
        """
        check_image(x.shape, 32)
        return tuple(self.maps(in_strides(x, 32) if is_open(x.shape[2:]) else x))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maps of ``forward``, in order."""
        raise NotImplementedError

    def parts(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """What to freeze of a stage, counted from 1; 0 is the stem."""
        raise NotImplementedError

    def ignores(self, key: str) -> bool:
        """Whether a key of a published checkpoint is of no use to this model."""
        raise NotImplementedError

    def may_lack(self, key: str) -> bool:
        """Whether a key of this model is in no published ImageNet checkpoint."""
        return False

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode, keep frozen stages in evaluation mode, return self."""
        super().train(mode)
        for part in self._frozen():
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def freeze(self) -> None:
        """Freeze the first ``frozen_stages`` stages; called at the end of a constructor."""
        for part in self._frozen():
            part.requires_grad_(False)
        self.train(self.training)

    def run(self, blocks: nn.ModuleList, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) through blocks, each recomputed in the backward pass if ``with_cp``."""
        spare: list[Tensor] = []  # one block's memory for the next: new memory is slow on CPUs
        for block in blocks:
            if self.with_cp and self.training:
                x = checkpoint(block, x, size, use_reentrant=False)
            else:
                x = block(x, size, spare)
        return x

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        return [p for stage in range(self.frozen_stages + 1) for p in self.parts(stage)]


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

    def forward(self, x: Tensor, size: Pair, spare: list[Tensor] | None = None) -> Tensor:
        """Tokens (B, N, C) of a map of ``size`` (H, W) -> tokens (B, N, C).

        ``spare`` has tensors (B, N, C) that nobody needs, see ``AgentAttention.forward``.
        """
        if not self.training and may_overwrite(self):
            return add_mlp_of_norm(self.mlp, self.norm2, add_into(self._attend(x, size, spare), x))
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(mlp_of_norm(self.mlp, self.norm2, x))

    def _attend(self, x: Tensor, size: Pair, spare: list[Tensor] | None) -> Tensor:
        if type(self.attn) is AgentAttention:
            return self.attn(x, size, self.norm1, spare)
        return self.attn(self.norm1(x), size)
