"""Agent-PVT: the Pyramid Vision Transformer with agent attention (paper, table 2 and appendix).

A tensor passes four stages; each is a patch embedding, a position embedding and blocks of
attention and MLP. Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.mixers.agent``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from agent_attention.arguments import (
    Pair,
    check_agent_shapes,
    check_attn_types,
    check_integer,
    reject_unknown,
    resolve_arch,
)
from agent_attention.backbones.base import Block, Pyramid
from agent_attention.backbones.features import Feature, FeatureInfo
from agent_attention.compute.size_cache import BySize
from agent_attention.layers import (
    PatchEmbed,
    add_into,
    init_linear_and_norm,
    init_table,
    is_open,
    linear_rates,
    may_overwrite,
    resize,
)
from agent_attention.mixers.agent import AgentAttention, to_map, to_tokens
from agent_attention.mixers.reduced import SpatialReductionAttention

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


class AgentPVT(Pyramid):
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
        reject_unknown(type(self), unknown)
        sizes = resolve_arch(arch, ARCHS)
        grids = check_agent_shapes(agent_shapes)
        types = check_attn_types(attn_types)
        check_integer("pretrain_img_size", pretrain_img_size, STRIDES[-1], 4096)
        rates = {"drop_path_rate": drop_path_rate, "drop_rate": drop_rate}
        super().__init__(
            out_indices, frozen_stages, with_cp, {**rates, "attn_drop_rate": attn_drop_rate}
        )

        drop_paths = linear_rates(drop_path_rate, sum(sizes["depths"]))
        drops = (attn_drop_rate, drop_rate)
        in_dim = 3
        for i in range(self.num_stages):
            dim, heads = sizes["embed_dims"][i], sizes["num_heads"][i]
            side = pretrain_img_size // STRIDES[i]
            blocks = nn.ModuleList()
            for _ in range(sizes["depths"][i]):
                attn = _attention(types[i], i, dim, heads, grids[i], side, drops)
                mlp_dim = dim * sizes["mlp_ratios"][i]
                blocks.append(Block(dim, attn, mlp_dim, drop_rate, drop_paths.pop(0), eps=1e-6))
            setattr(self, f"patch_embed{i + 1}", PatchEmbed(in_dim, dim, PATCH_STRIDES[i]))
            setattr(self, f"pos_drop{i + 1}", nn.Dropout(drop_rate))
            setattr(self, f"pos_embed{i + 1}", init_table(1, side * side, dim))
            setattr(self, f"pos_by_size{i + 1}", BySize())
            setattr(self, f"block{i + 1}", blocks)
            in_dim = dim

        dims = sizes["embed_dims"]
        self.feature_info = FeatureInfo(
            Feature(dims[i], STRIDES[i], f"block{i + 1}") for i in self.out_indices
        )
        self._pos_shape = [(pretrain_img_size // s,) * 2 for s in STRIDES]
        self.apply(init_linear_and_norm)
        self.freeze()

    def maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> maps (B, C_i, H/s_i, W/s_i) with strides s_i = 4, 8, 16, 32.

        Rows and columns that fill no patch are dropped.
        """
        outs = []
        for i in range(self.num_stages):
            embed = getattr(self, f"patch_embed{i + 1}")
            x, size = embed(x)  # (B, N, C)
            position = self._position(i, size)
            x = add_into(x, position) if may_overwrite(embed) else x + position
            x = getattr(self, f"pos_drop{i + 1}")(x)
            x = self.run(getattr(self, f"block{i + 1}"), x, size)
            x = to_map(x, size)
            if i in self.out_indices:
                outs.append(x.contiguous())
        return outs

    def parts(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """Patch and position embedding of a stage, and its blocks; the first embedding for 0."""
        names = ["patch_embed", "pos_embed", "pos_drop"] + (["block"] if stage else [])
        return [getattr(self, f"{name}{stage or 1}") for name in names]

    def ignores(self, key: str) -> bool:
        """The stages that are not built."""
        stage = re.match(r"(?:patch_embed|pos_embed|block)(\d)\b", key)
        return stage is not None and int(stage.group(1)) > self.num_stages

    def _position(self, i: int, size: Pair) -> Tensor:
        """Position embedding (1, N, C) of stage i, resized to ``size`` where it differs."""
        table = getattr(self, f"pos_embed{i + 1}")  # (1, Hs*Ws, C)
        if not is_open(size) and size == self._pos_shape[i]:
            return table

        def resized() -> tuple[Tensor]:
            return (to_tokens(resize(to_map(table, self._pos_shape[i]), size)),)

        (position,) = getattr(self, f"pos_by_size{i + 1}")(size, [table], resized)
        return position


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
