"""Agent-PVT: the Pyramid Vision Transformer with agent attention (paper, table 2 and appendix).

A tensor passes four stages; each is a patch embedding, a position embedding and blocks of
attention and MLP. Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.attention``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agent_attention.attention import AgentAttention, to_map, to_tokens
from agent_attention.checks import (
    Pair,
    check_agent_shapes,
    check_attn_types,
    check_image,
    check_integer,
    check_out_indices,
    check_rate,
    reject_unknown,
    resolve_arch,
)
from agent_attention.layers import (
    DropPath,
    Mlp,
    PatchEmbed,
    init_linear_and_norm,
    init_table,
    resize,
)
from agent_attention.spatial_reduction import SpatialReductionAttention

_WIDTHS = {
    "embed_dims": (64, 128, 320, 512),
    "num_heads": (1, 2, 5, 8),
    "mlp_ratios": (8, 8, 4, 4),
}
# PVT's own sizes (arXiv 2102.12122, table 1), which Agent-PVT keeps.
ARCHS: dict[str, dict[str, tuple[int, ...]]] = {
    "tiny": {**_WIDTHS, "depths": (2, 2, 2, 2)},
    "small": {**_WIDTHS, "depths": (3, 4, 6, 3)},
    "medium": {**_WIDTHS, "depths": (3, 4, 18, 3)},
    "large": {**_WIDTHS, "depths": (3, 8, 27, 3)},
}
PATCH_STRIDES = (4, 2, 2, 2)
STRIDES = (4, 8, 16, 32)  # of each stage's map, in pixels of the image
BASE_GRIDS = (3, 4, 7, 7)  # p: 9, 16, 49, 49 base agents
SR_RATIOS = (8, 4, 2, 1)  # spatial reduction where a stage uses softmax attention


class AgentPVT(nn.Module):
    """Agent-PVT backbone: an image to a pyramid of feature maps.

    Args:
        arch: 'tiny', 'small', 'medium', 'large', or a dict with the keys of ``ARCHS['tiny']``.
        agent_shapes: agent grid (a_h, a_w) of each stage. The default is the one published for
            detection and segmentation; ((3, 3), (4, 4), (7, 7), (7, 7)) is that of ImageNet.
        attn_types: a letter a stage: 'A' agent attention, 'B' softmax with spatial reduction.
        pretrain_img_size: side, in pixels, of the images the position and bias tables are for.
        out_indices: stages whose maps are returned; later stages than the last are not built.
        drop_path_rate: stochastic depth of the last block; earlier ones grow linearly from 0.
        drop_rate: dropout after position embeddings, projections and MLP layers.
        attn_drop_rate: dropout on attention maps.
        frozen_stages: -1 trains everything; k freezes the first k stages, 0 only the first
            patch and position embedding.
        with_cp: recompute blocks in the backward pass (gradient checkpointing) to save memory.

    Raises:
        TypeError: on an unknown argument.
        ValueError: on a value that is not allowed; the message says what is.
    """

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        agent_shapes: Sequence[Pair] = ((12, 12), (16, 16), (28, 28), (28, 28)),
        attn_types: str = "AAAA",
        pretrain_img_size: int = 224,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        **unknown: Any,
    ) -> None:
        super().__init__()
        reject_unknown(type(self), unknown)
        sizes = resolve_arch(arch, ARCHS)
        grids = check_agent_shapes(agent_shapes)
        types = check_attn_types(attn_types)
        self.out_indices = check_out_indices(out_indices)
        self.num_stages = max(self.out_indices) + 1
        rates = {"drop_path_rate": drop_path_rate, "drop_rate": drop_rate}
        for name, rate in {**rates, "attn_drop_rate": attn_drop_rate}.items():
            check_rate(name, rate)
        check_integer("frozen_stages", frozen_stages, -1, self.num_stages)
        check_integer("pretrain_img_size", pretrain_img_size, STRIDES[-1], 4096)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        self.pos_drop = nn.Dropout(drop_rate)

        drop_paths = torch.linspace(0, drop_path_rate, sum(sizes["depths"])).tolist()
        drops = (attn_drop_rate, drop_rate)
        in_dim = 3
        for i in range(self.num_stages):
            dim, heads = sizes["embed_dims"][i], sizes["num_heads"][i]
            side = pretrain_img_size // STRIDES[i]
            blocks = nn.ModuleList()
            for _ in range(sizes["depths"][i]):
                attn = _attention(types[i], i, dim, heads, grids[i], side, drops)
                mlp_dim = dim * sizes["mlp_ratios"][i]
                blocks.append(Block(dim, attn, mlp_dim, drop_rate, drop_paths.pop(0)))
            setattr(self, f"patch_embed{i + 1}", PatchEmbed(in_dim, dim, PATCH_STRIDES[i]))
            setattr(self, f"pos_embed{i + 1}", init_table(1, side * side, dim))
            setattr(self, f"block{i + 1}", blocks)
            in_dim = dim

        self._pos_shape = [(pretrain_img_size // s,) * 2 for s in STRIDES]
        self.apply(init_linear_and_norm)
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) -> one map (B, C_i, H/s_i, W/s_i) for each of ``out_indices``.

        The strides s_i are 4, 8, 16, 32; rows and columns that fill no patch are dropped.

        Raises:
            ValueError: if the image has not three channels or is smaller than 32x32 pixels.
        """
        check_image(x.shape, STRIDES[-1])
        outs = []
        for i in range(self.num_stages):
            x = self._stage(i, x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def train(self, mode: bool = True) -> "AgentPVT":
        """Set training mode, keep frozen stages in evaluation mode, return self."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _stage(self, i: int, x: Tensor) -> Tensor:
        """Stage i: a map (B, C_in, H, W) -> (B, C, H/s, W/s)."""
        x, size = getattr(self, f"patch_embed{i + 1}")(x)  # (B, N, C)
        x = self.pos_drop(x + self._position(i, size))
        for block in getattr(self, f"block{i + 1}"):
            if self.with_cp and self.training:
                x = checkpoint(block, x, size, use_reentrant=False)
            else:
                x = block(x, size)
        return to_map(x, size).contiguous()

    def _position(self, i: int, size: Pair) -> Tensor:
        """Position embedding (1, N, C) of stage i, resized to ``size`` where it differs."""
        table = getattr(self, f"pos_embed{i + 1}")  # (1, Hs*Ws, C)
        if size == self._pos_shape[i]:
            return table
        return to_tokens(resize(to_map(table, self._pos_shape[i]), size))

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        whole = range(1, self.frozen_stages + 1)
        blocks = [getattr(self, f"block{i}") for i in whole]
        return [getattr(self, f"patch_embed{i}") for i in whole or (1,)] + blocks

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        tables = [getattr(self, f"pos_embed{i}") for i in range(1, self.frozen_stages + 1) or (1,)]
        modules = self._frozen_modules()
        for parameter in tables + [p for module in modules for p in module.parameters()]:
            parameter.requires_grad_(False)
        for module in modules:
            module.eval()


def _attention(
    kind: str,
    stage: int,
    dim: int,
    num_heads: int,
    agent_shape: Pair,
    side: int,
    drops: tuple[float, float],
) -> nn.Module:
    """The attention of one block: 'A' agent, 'B' softmax with the stage's spatial reduction."""
    if kind == "B":
        return SpatialReductionAttention(dim, num_heads, SR_RATIOS[stage], True, *drops)
    table_shape = (side, side)
    return AgentAttention(dim, num_heads, BASE_GRIDS[stage], agent_shape, table_shape, True, *drops)


class Block(nn.Module):
    """Pre-norm transformer block: x + attention, then x + MLP, each with stochastic depth."""

    def __init__(
        self, dim: int, attn: nn.Module, mlp_dim: int, drop_rate: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = attn
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, mlp_dim, drop_rate)

    def forward(self, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) of a map of ``size`` (H, W) -> tokens (B, N, C)."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))
