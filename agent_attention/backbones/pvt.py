"""Agent-PVT: the Pyramid Vision Transformer with agent attention (paper, table 2 and appendix).

A tensor passes four stages; each is a patch embedding, a position embedding and blocks of
attention and MLP. Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.mixers.agent``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from agent_attention.arguments import (
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
from agent_attention.compute.symbolic import resize_tokens
from agent_attention.layers import PatchEmbed, init_linear_and_norm, init_table, linear_rates
from agent_attention.mixers import MIXERS
from agent_attention.mixers.base import to_map
from agent_attention.mixers.grids import agent_grids

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


class Stage(NamedTuple):
    """What is the same in all sizes of the backbone."""

    stride: int  # of the map, in pixels of the image
    patch: int  # side of a patch, in pixels of the map before
    base_grid: int  # p: p*p base agents
    sr_ratio: int  # spatial reduction where the stage uses softmax attention


STAGES = (Stage(4, 4, 3, 8), Stage(8, 2, 4, 4), Stage(16, 2, 7, 2), Stage(32, 2, 7, 1))
BASE_GRIDS = tuple((stage.base_grid,) * 2 for stage in STAGES)  # those of ImageNet
AGENT_SHAPES = ((12, 12), (16, 16), (28, 28), (28, 28))  # of COCO and ADE20K
CAPS = (4,) * len(STAGES)  # with which ``GridRule`` gives them
LETTERS = {"A": "agent", "B": "reduced"}  # of ``attn_types``
_WINDOW = 7  # M where a stage uses windows


class AgentPVT(Backbone):
    """Agent-PVT backbone: an image to a pyramid of feature maps.

    Args:
        arch: 'tiny', 'small', 'medium', 'large', or a dict with the keys of ``ARCHS['tiny']``.
        agent_shapes: agent grid (a_h, a_w) of each stage. The default is the one published for
            detection and segmentation; ((3, 3), (4, 4), (7, 7), (7, 7)) is that of ImageNet. For
            'bounded', a number or a rule see ``agent_grids``.
        attn_types: a letter a stage: 'A' agent attention, 'B' softmax with spatial reduction; or
            a run such as '2A16B', two agent blocks and then sixteen of the other.
        pretrain_img_size: side, in pixels, of the images the position and bias tables are for.
        out_indices: stages whose maps are returned; later stages than the last are not built.
        drop_path_rate: stochastic depth of the last block; earlier ones grow linearly from 0.
        drop_rate: dropout after position embeddings, projections and MLP layers.
        attn_drop_rate: dropout on attention maps.
        frozen_stages: -1 trains everything; k freezes the first k stages, 0 only the first
            patch and position embedding.
        with_cp: recompute blocks in the backward pass (gradient checkpointing) to save memory.
        mixers: in place of ``attn_types``, a name of ``MIXERS`` a stage, or a run such as
            '2 agent, 16 windows'.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    ARCHS = ARCHS
    CLASSIFIER = ClassifierRules({"agent_shapes": BASE_GRIDS, "out_indices": (3,)})

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        agent_shapes: Any = AGENT_SHAPES,
        attn_types: Sequence[str] = "AAAA",
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
        ratios = zip(sizes["mlp_ratios"], sizes["embed_dims"], strict=True)
        linear = [(1 + ratio / 2) * dim for ratio, dim in ratios]
        grids = agent_grids(agent_shapes, AGENT_SHAPES, CAPS, linear)
        names = mixer_names(mixers, attn_types, LETTERS, sizes["depths"], MIXERS)
        strides = [stage.stride for stage in STAGES]
        check_integer("pretrain_img_size", pretrain_img_size, strides[-1], 4096)
        rates = (drop_path_rate, drop_rate, attn_drop_rate)
        super().__init__(strides, out_indices, frozen_stages, with_cp, *rates)

        drop_paths = iter(linear_rates(drop_path_rate, sum(sizes["depths"])))
        dims = sizes["embed_dims"]
        self._tables = [(pretrain_img_size // stride,) * 2 for stride in strides]
        for i, stage in enumerate(STAGES[: self.num_stages]):
            dim, heads, table = dims[i], sizes["num_heads"][i], self._tables[i]
            blocks = build_blocks(
                *(names[i], dim, heads, dim * sizes["mlp_ratios"][i], drop_rate, drop_paths),
                eps=1e-6,
                window=_WINDOW,
                attn_drop=attn_drop_rate,
                base_grid=stage.base_grid,
                agent_shape=grids[i],
                table_shape=table,
                sr_ratio=stage.sr_ratio,
            )
            embed = PatchEmbed(dims[i - 1] if i else 3, dim, stage.patch)
            setattr(self, f"patch_embed{i + 1}", embed)
            setattr(self, f"pos_drop{i + 1}", nn.Dropout(drop_rate))
            setattr(self, f"pos_embed{i + 1}", init_table(1, table[0] * table[1], dim))
            setattr(self, f"block{i + 1}", blocks)

        self.feature_info = FeatureInfo(
            Feature(dims[i], strides[i], f"block{i + 1}") for i in self.out_indices
        )
        self.apply(init_linear_and_norm)
        self.freeze()

    def maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> maps (B, C_i, H/s_i, W/s_i) with strides s_i = 4, 8, 16, 32.

        Rows and columns that fill no patch are dropped.
        """
        outs = []
        for i in range(self.num_stages):
            x, size = getattr(self, f"patch_embed{i + 1}")(x)  # (B, N, C)
            position = resize_tokens(getattr(self, f"pos_embed{i + 1}"), self._tables[i], size)
            x = getattr(self, f"pos_drop{i + 1}")(x + position)
            x = self.run(getattr(self, f"block{i + 1}"), x, size)
            x = to_map(x, size)
            if i in self.out_indices:
                outs.append(x.contiguous())
        return outs

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """Patch and position embedding of a stage, and its blocks; the first embedding for 0."""
        names = ["patch_embed", "pos_embed", "pos_drop"] + (["block"] if stage else [])
        return [getattr(self, f"{name}{stage or 1}") for name in names]

    def is_unused_key(self, key: str) -> bool:
        """The stages that are not built."""
        stage = re.match(r"(?:patch_embed|pos_embed|block)(\d)\b", key)
        return stage is not None and int(stage.group(1)) > self.num_stages

    @classmethod
    def recognise(cls, weights: Mapping[str, Tensor]) -> Recognised | None:
        """PVT's files have a first patch embedding, architectures differ in their depths."""
        return recognise_pvt(cls, weights, agent_img_size(weights, "block1.0.attn", 4))


def recognise_pvt(
    family: type[AgentPVT], weights: Mapping[str, Tensor], img_size: int | None
) -> Recognised | None:
    """What ``recognise`` returns for a file of PVT's skeleton."""
    if "patch_embed1.proj.weight" not in weights or "pos_embed1" not in weights:
        return None
    depths = tuple(count_of(weights, rf"block{i + 1}\.(\d+)\.") for i in range(len(STAGES)))
    arch = {sizes["depths"]: name for name, sizes in ARCHS.items()}.get(depths)
    return Recognised(family, depths, arch, img_size, family.options_at(img_size or 224))
