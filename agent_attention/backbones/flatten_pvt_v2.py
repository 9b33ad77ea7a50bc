"""FLatten-PVTv2: the second Pyramid Vision Transformer with focused linear attention.

Beside PVT its patches overlap, its MLPs have a convolution that tells places, so that there are no
position embeddings, and a norm ends each stage.
Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.mixers.agent``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from agent_attention.arguments import (
    Pair,
    check_integer,
    mixer_names,
    resolve_arch,
)
from agent_attention.backbones.base import Backbone
from agent_attention.backbones.block import Block, build_blocks
from agent_attention.backbones.info import (
    ClassifierRules,
    Feature,
    FeatureInfo,
    Recognised,
    count_of,
    encoding_img_size,
)
from agent_attention.backbones.pvt import AGENT_SHAPES, CAPS
from agent_attention.layers import Mlp, init_linear_and_norm, linear_rates
from agent_attention.mixers import MIXERS
from agent_attention.mixers.base import to_map, to_tokens
from agent_attention.mixers.grids import agent_grids

_HEADS = {"num_heads": (1, 2, 5, 8), "mlp_ratios": (8, 8, 4, 4)}
_WIDTHS = {"embed_dims": (64, 128, 320, 512), **_HEADS}
# PVTv2's own sizes (arXiv 2106.13797, table 1).
ARCHS: dict[str, dict[str, tuple[int, ...]]] = {
    "b0": {"embed_dims": (32, 64, 160, 256), **_HEADS, "depths": (2, 2, 2, 2)},
    "b1": {**_WIDTHS, "depths": (2, 2, 2, 2)},
    "b2": {**_WIDTHS, "depths": (3, 4, 6, 3)},
    "b3": {**_WIDTHS, "depths": (3, 4, 18, 3)},
    "b4": {**_WIDTHS, "depths": (3, 8, 27, 3)},
}


class Stage(NamedTuple):
    """What is the same in all sizes of the backbone."""

    stride: int  # of the map, in pixels of the image
    kernel: int  # side of the patches, which overlap
    step: int  # from patch to patch
    base_grid: int  # p: p*p base agents, where ``mixers`` asks for agents
    sr_ratio: int  # PVT's spatial reduction, where ``mixers`` asks for it


STAGES = (
    Stage(4, 7, 4, 3, 8),
    Stage(8, 3, 2, 4, 4),
    Stage(16, 3, 2, 7, 2),
    Stage(32, 3, 2, 7, 1),
)
_WINDOW = 7  # M where a stage uses windows
_EPS = 1e-6


class FLattenPVTv2(Backbone):
    """FLatten-PVTv2 backbone (arXiv 2308.00442): an image to a pyramid of feature maps.

    Args:
        arch: 'b0' to 'b4', or a dict with the keys of ``ARCHS['b0']``.
        mixers: a name of ``MIXERS`` a stage, or a run such as '2 focused, 2 softmax'.
        agent_shapes: agent grid (a_h, a_w) of each stage, where mixers have agents.
        pretrain_img_size: side, in pixels, of the images the tables are for.
        out_indices: stages whose maps are returned; later stages than the last are not built.
        drop_path_rate: stochastic depth of the last block; earlier ones grow linearly from 0.
        drop_rate: dropout after projections and MLP layers.
        attn_drop_rate: dropout on attention maps.
        frozen_stages: -1 trains everything; k freezes the first k stages, 0 only the first patch
            embedding.
        with_cp: recompute blocks in the backward pass (gradient checkpointing) to save memory.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    ARCHS = ARCHS
    CLASSIFIER = ClassifierRules({"out_indices": (3,)})

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "b0",
        mixers: Sequence[Any] = ("focused",) * 4,
        agent_shapes: Any = AGENT_SHAPES,
        pretrain_img_size: int = 224,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        ratios = zip(sizes["mlp_ratios"], sizes["embed_dims"], strict=True)
        linear = [(1 + ratio / 2) * dim for ratio, dim in ratios]
        grids = agent_grids(agent_shapes, AGENT_SHAPES, CAPS, linear)
        names = mixer_names(mixers, None, {}, sizes["depths"], MIXERS)
        strides = [stage.stride for stage in STAGES]
        check_integer("pretrain_img_size", pretrain_img_size, strides[-1], 4096)
        rates = (drop_path_rate, drop_rate, attn_drop_rate)
        super().__init__(strides, out_indices, frozen_stages, with_cp, *rates)

        drop_paths = iter(linear_rates(drop_path_rate, sum(sizes["depths"])))
        dims = sizes["embed_dims"]
        for i, stage in enumerate(STAGES[: self.num_stages]):
            dim, heads = dims[i], sizes["num_heads"][i]
            blocks = build_blocks(
                *(names[i], dim, heads, dim * sizes["mlp_ratios"][i], drop_rate, drop_paths),
                eps=_EPS,
                window=_WINDOW,
                block=ConvBlock,
                attn_drop=attn_drop_rate,
                base_grid=stage.base_grid,
                agent_shape=grids[i],
                table_shape=(pretrain_img_size // stage.stride,) * 2,
                sr_ratio=stage.sr_ratio,
            )
            embed = OverlapEmbed(dims[i - 1] if i else 3, dim, stage.kernel, stage.step)
            setattr(self, f"patch_embed{i + 1}", embed)
            setattr(self, f"block{i + 1}", blocks)
            setattr(self, f"norm{i + 1}", nn.LayerNorm(dim, eps=_EPS))
        self.feature_info = FeatureInfo(
            Feature(dims[i], strides[i], f"block{i + 1}") for i in self.out_indices
        )
        self.apply(init_linear_and_norm)
        self.freeze()

    def maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> maps (B, C_i, H/s_i, W/s_i), s_i = 4, 8, 16, 32, rounded up."""
        outs = []
        for i in range(self.num_stages):
            x, size = getattr(self, f"patch_embed{i + 1}")(x)  # (B, N, C)
            x = self.run(getattr(self, f"block{i + 1}"), x, size)
            x = to_map(getattr(self, f"norm{i + 1}")(x), size)
            if i in self.out_indices:
                outs.append(x.contiguous())
        return outs

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """Patch embedding, blocks and norm of a stage; the first patch embedding for 0."""
        names = ["patch_embed", "block", "norm"] if stage else ["patch_embed"]
        return [getattr(self, f"{name}{stage or 1}") for name in names]

    def is_unused_key(self, key: str) -> bool:
        """The stages that are not built."""
        stage = re.match(r"(?:patch_embed|block|norm)(\d)\b", key)
        return stage is not None and int(stage.group(1)) > self.num_stages

    @classmethod
    def recognise(cls, weights: Mapping[str, Tensor]) -> Recognised | None:
        """PVTv2's files have a convolution in their MLPs; sizes are channels and depths."""
        embed = weights.get("patch_embed1.proj.weight")
        if embed is None or "block1.0.mlp.dwconv.dwconv.weight" not in weights:
            return None
        depths = [count_of(weights, rf"block{i + 1}\.(\d+)\.") for i in range(len(STAGES))]
        sizes = (embed.shape[0], *depths)
        known = {(each["embed_dims"][0], *each["depths"]): name for name, each in ARCHS.items()}
        img_size = encoding_img_size(weights, "block1.0.attn", STAGES[0].stride)
        return Recognised(cls, sizes, known.get(sizes), img_size, cls.options_at(img_size or 224))


class OverlapEmbed(nn.Module):
    """Overlapping patches: a convolution whose kernel is larger than its stride, then LayerNorm."""

    def __init__(self, in_dim: int, dim: int, kernel: int, step: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_dim, dim, kernel_size=kernel, stride=step, padding=kernel // 2)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> tuple[Tensor, Pair]:
        """(B, C_in, H, W) -> tokens (B, N, C) and the new (H, W), rounded up."""
        x = self.proj(x)
        return self.norm(to_tokens(x)), (x.shape[2], x.shape[3])


class ConvMlp(Mlp):
    """Two linear layers with a depth-wise convolution of 3 x 3 and GELU between them."""

    def __init__(self, dim: int, hidden_dim: int, drop: float = 0.0) -> None:
        super().__init__(dim, hidden_dim, drop)
        conv = nn.Conv2d(hidden_dim, hidden_dim, kernel_size=3, padding=1, groups=hidden_dim)
        self.dwconv = nn.ModuleDict({"dwconv": conv})  # as published

    def forward(self, x: Tensor, size: Pair) -> Tensor:  # type: ignore[override]
        """Tokens (B, N, C) of a map of ``size`` (H, W) -> tokens (B, N, C)."""
        hidden = to_tokens(self.dwconv["dwconv"](to_map(self.fc1(x), size)))
        return self.drop(self.fc2(self.drop(self.act(hidden))))


class ConvBlock(Block):
    """A block with a ``ConvMlp``."""

    def __init__(self, dim: int, attn: nn.Module, mlp_dim: int, drop: float, *args: Any) -> None:
        super().__init__(dim, attn, mlp_dim, drop, *args)
        self.mlp = ConvMlp(dim, mlp_dim, drop)

    def feed(self, x: Tensor, size: Pair) -> Tensor:
        """mlp(norm2(x)) of tokens (B, N, C)."""
        out: Tensor = self.mlp(self.norm2(x), size)
        return out
