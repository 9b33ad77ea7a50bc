"""Agent-Swin: the Swin Transformer with agent attention in its early stages (paper, section 4.4).

A tensor passes four stages of blocks; between them ``PatchMerging`` halves the resolution. Stages
whose maps are large use agent attention over the whole map, the later ones Swin's windows.
Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.mixers.agent``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from agent_attention.arguments import (
    Pair,
    check_integer,
    mixer_names,
    resolve_arch,
)
from agent_attention.backbones.base import Backbone
from agent_attention.backbones.block import build_blocks
from agent_attention.backbones.info import (
    ClassifierRules,
    Feature,
    FeatureInfo,
    Recognised,
    agent_img_size,
    count_of,
)
from agent_attention.compute.symbolic import pad_ends
from agent_attention.layers import PatchEmbed, init_linear_and_norm, linear_rates
from agent_attention.mixers import MIXERS
from agent_attention.mixers.base import to_map
from agent_attention.mixers.grids import agent_grids

# Swin's own sizes (arXiv 2103.14030, section 3.3), and which blocks are agent attention ('A').
ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}
ATTN_TYPES = {
    "tiny": ("A", "A", "A", "B"),
    "small": ("A", "A", "B", "B"),
    "base": ("A", "A", "2A16B", "B"),
}


class Stage(NamedTuple):
    """What is the same in all sizes of the backbone."""

    stride: int  # of the map, in pixels of the image
    width: int  # channels, in those of the first stage
    base_grid: int  # p: p*p base agents
    sr_ratio: int  # PVT's spatial reduction, where ``mixers`` asks for it


STAGES = (Stage(4, 1, 3, 8), Stage(8, 2, 4, 4), Stage(16, 4, 7, 2), Stage(32, 8, 7, 1))
BASE_GRIDS = tuple((stage.base_grid,) * 2 for stage in STAGES)  # those of ImageNet
AGENT_SHAPES = ((9, 9), (12, 12), (14, 14), (7, 7))  # of COCO and ADE20K
CAPS = (3, 3, 2, 1)  # with which ``GridRule`` gives them
LETTERS = {"A": "agent", "B": "windows"}  # of ``attn_types``
MLP_RATIO = 4
_PATCH = STAGES[0].stride
_EPS = 1e-5


class AgentSwinTransformer(Backbone):
    """Agent-Swin backbone: an image to a pyramid of feature maps.

    Args:
        arch: 'tiny', 'small', 'base', or a dict with the keys of ``ARCHS['tiny']``.
        agent_shapes: agent grid (a_h, a_w) of each stage. The default is the one published for
            detection and segmentation; ``agent_grids`` says what else it may be.
        window_size: side of Agent-Swin's nominal window; 'B' blocks use windows of
            M = max(7, window_size // 8) pixels. 56 (M = 7) for models pre-trained at 224 pixels,
            72 (M = 9) at 288, 96 (M = 12) at 384.
        attn_types: an item a stage: 'A' agent attention, 'B' shifted windows, or a run of both
            such as '2A16B', two agent blocks and then sixteen of windows. None takes the published
            ones of the arch, and those of 'tiny' for a dict.
        pretrain_img_size: side, in pixels, of the images the bias tables are for.
        out_indices: stages whose maps are returned; later stages than the last are not built.
        drop_path_rate: stochastic depth of the last block; earlier ones grow linearly from 0.
        drop_rate: dropout after the patch embedding, projections and MLP layers.
        attn_drop_rate: dropout on attention maps.
        frozen_stages: -1 trains everything; k freezes the first k stages with their output norms,
            0 only the patch embedding.
        with_cp: recompute blocks in the backward pass (gradient checkpointing) to save memory.
        mixers: in place of ``attn_types``, a name of ``MIXERS`` a stage, or a run such as
            '2 agent, 16 windows'.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    ARCHS = ARCHS
    CLASSIFIER = ClassifierRules(
        {"agent_shapes": BASE_GRIDS, "out_indices": (3,)}, norm="norm3", uncropped=(384,)
    )
    shift_small = True  # shift the windows of maps that are no larger than one

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        agent_shapes: Any = AGENT_SHAPES,
        window_size: int = 56,
        attn_types: Sequence[str] | None = None,
        pretrain_img_size: int = 224,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        mixers: Sequence[str] | None = None,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        linear = [(1 + MLP_RATIO / 2) * sizes["embed_dim"] * stage.width for stage in STAGES]
        grids = agent_grids(agent_shapes, AGENT_SHAPES, CAPS, linear)
        if attn_types is None:
            attn_types = ATTN_TYPES[arch if isinstance(arch, str) else "tiny"]
        names = mixer_names(mixers, attn_types, LETTERS, sizes["depths"], MIXERS)
        check_integer("window_size", window_size, 1, 4096)
        strides = [stage.stride for stage in STAGES]
        check_integer("pretrain_img_size", pretrain_img_size, strides[-1], 4096)
        rates = (drop_path_rate, drop_rate, attn_drop_rate)
        super().__init__(strides, out_indices, frozen_stages, with_cp, *rates)

        self.patch_embed = PatchEmbed(3, sizes["embed_dim"], _PATCH)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList()
        drop_paths = iter(linear_rates(drop_path_rate, sum(sizes["depths"])))
        dims = [sizes["embed_dim"] * stage.width for stage in STAGES]
        for i, stage in enumerate(STAGES[: self.num_stages]):
            dim, heads = dims[i], sizes["num_heads"][i]
            blocks = build_blocks(
                *(names[i], dim, heads, MLP_RATIO * dim, drop_rate, drop_paths, _EPS),
                window=max(7, window_size // 8),
                shift_small=self.shift_small,
                attn_drop=attn_drop_rate,
                joint_qkv=True,
                base_grid=stage.base_grid,
                agent_shape=grids[i],
                table_shape=(pretrain_img_size // stage.stride,) * 2,
                sr_ratio=stage.sr_ratio,
            )
            last = i == self.num_stages - 1
            self.layers.append(Layer(blocks, None if last else PatchMerging(dim)))
            if i in self.out_indices:
                setattr(self, f"norm{i}", nn.LayerNorm(dim, eps=_EPS))
        self.feature_info = FeatureInfo(
            Feature(dims[i], strides[i], f"layers.{i}") for i in self.out_indices
        )
        self.apply(init_linear_and_norm)
        self.freeze()

    def maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> normalised maps (B, C*2^i, H/s_i, W/s_i), s_i = 4, 8, 16, 32.

        Sides that are no multiple of a stride are padded right and bottom, so sizes round up.
        """
        x, size = self.patch_embed(pad_ends(x, _PATCH, (2, 3)))  # (B, N, C)
        x = self.pos_drop(x)
        outs = []
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            x = self.run(layer.blocks, x, size)
            if i in self.out_indices:
                outs.append(to_map(getattr(self, f"norm{i}")(x), size).contiguous())
            if layer.downsample is not None:
                x, size = layer.downsample(x, size)
        return outs

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """A stage with its output norm; the patch embedding for 0."""
        if stage == 0:
            return [self.patch_embed, self.pos_drop]
        norm = getattr(self, f"norm{stage - 1}", None)
        return [self.layers[stage - 1]] + ([norm] if norm is not None else [])

    def is_unused_key(self, key: str) -> bool:
        """The classifier's norm, the stages that are not built and the norms of maps not wanted."""
        stage = re.match(r"layers\.(\d)\.(downsample\.)?", key)
        if stage is not None:
            last = self.num_stages - 1
            return int(stage.group(1)) > last - (stage.group(2) is not None)
        return re.match(r"norm\d?\.", key) is not None

    def is_optional_key(self, key: str) -> bool:
        """The output norms, which a classifier does not have."""
        return re.match(r"norm\d\.", key) is not None

    @classmethod
    def recognise(cls, weights: Mapping[str, Tensor]) -> Recognised | None:
        """Swin's files have layers, architectures differ in channels and depths."""
        return recognise_swin(cls, weights, agent_img_size(weights, "layers.0.blocks.0.attn", 4))

    @classmethod
    def options_at(cls, img_size: int) -> dict[str, Any]:
        """The image's side, and windows that grow with it as in the published models."""
        return {"pretrain_img_size": img_size, "window_size": img_size // 32 * 8}


def recognise_swin(
    family: type[AgentSwinTransformer], weights: Mapping[str, Tensor], img_size: int | None
) -> Recognised | None:
    """What ``recognise`` returns for a file of Swin's skeleton."""
    embed = weights.get("patch_embed.proj.weight")
    if embed is None or not any(key.startswith("layers.0.") for key in weights):
        return None
    depths = [count_of(weights, rf"layers\.{i}\.blocks\.(\d+)\.") for i in range(len(STAGES))]
    sizes = (*embed.shape[:1], *depths)
    known = {(each["embed_dim"], *each["depths"]): name for name, each in ARCHS.items()}
    options = {**family.options_at(img_size or 224), "window_size": 8 * _window(weights)}
    return Recognised(family, sizes, known.get(sizes), img_size, options)


class Layer(nn.Module):
    """Blocks of one resolution, and the step to the next one unless it is the last."""

    def __init__(self, blocks: nn.ModuleList, downsample: "PatchMerging | None") -> None:
        super().__init__()
        self.blocks = blocks
        self.downsample = downsample


class PatchMerging(nn.Module):
    """Joins 2x2 pixels and projects 4C to 2C channels (Swin, section 3.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=_EPS)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor, size: Pair) -> tuple[Tensor, Pair]:
        """Tokens (B, N, C) of ``size`` (H, W) -> (B, N/4, 2C) and the new size, rounded up."""
        x = pad_ends(x.unflatten(1, size), 2, (1, 2))  # (B, H', W', C)
        corners = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        x = torch.cat(corners, dim=-1)  # (B, H'/2, W'/2, 4C)
        size = (x.shape[1], x.shape[2])
        return self.reduction(self.norm(x.flatten(1, 2))), size


def _window(weights: Mapping[str, Tensor]) -> int:
    """M of the first window block: its table has (2M - 1)^2 rows; 7 where there is none."""
    for key, table in weights.items():
        if key.endswith("relative_position_bias_table") and table.dim():
            return (round(table.shape[0] ** 0.5) + 1) // 2
    return 7
