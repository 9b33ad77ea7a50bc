"""What the backbones of four stages share. Shape letters: see ``agent_attention.mixers.agent``."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from agent_attention.arguments import check_integer, mixer_names, resolve_arch
from agent_attention.backbones.base import Backbone
from agent_attention.backbones.block import Block, build_blocks
from agent_attention.backbones.info import (
    Feature,
    FeatureInfo,
    Recognised,
    count_of,
    table_img_size,
)
from agent_attention.layers import init_linear_and_norm, linear_rates
from agent_attention.mixers import MIXERS
from agent_attention.mixers.grids import agent_grids


class Stage(NamedTuple):
    """What is the same in all sizes of all families."""

    stride: int  # of the map, in pixels of the image
    base_grid: int  # p: p*p base agents
    sr_ratio: int  # PVT's spatial reduction, where a stage uses it


STAGES = (Stage(4, 3, 8), Stage(8, 4, 4), Stage(16, 7, 2), Stage(32, 7, 1))
BASE_GRIDS = tuple((stage.base_grid,) * 2 for stage in STAGES)  # those of ImageNet
MLP_RATIO = 4  # where an architecture has no ratios of its own


class Pyramid(Backbone):
    """Stages of strides 4, 8, 16 and 32, each of one width.

    A family writes ``add_stage`` and ``maps``, and says how its parameters are named.

    Args:
        place: what else the family's blocks take, see ``build_blocks``.
        arch: a name of ``ARCHS``, or a dict with the keys of one of them.
        agent_shapes: agent grid (a_h, a_w) of each stage, or what else ``agent_grids`` takes.
        mixers: a name of ``MIXERS`` a stage, or a run such as '2 agent, 16 windows'.
        attn_types: the same in the letters of ``LETTERS``, where ``mixers`` is None.
        pretrain_img_size: side, in pixels, of the images the tables are for.
        out_indices: stages whose maps are returned; later stages than the last are not built.
        drop_path_rate: stochastic depth of the last block; earlier ones grow linearly from 0.
        drop_rate: dropout after position embeddings, projections and MLP layers.
        attn_drop_rate: dropout on attention maps.
        frozen_stages: -1 trains everything; k freezes the stem and the first k stages.
        with_cp: recompute blocks in the backward pass (gradient checkpointing) to save memory.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    AGENT_SHAPES = BASE_GRIDS  # what 'published' stands for
    CAPS: tuple[float, ...] = (1,) * len(STAGES)  # with which ``GridRule`` gives them
    LETTERS: Mapping[str, str] = {}  # of ``attn_types``
    EPS = 1e-6  # of the norms
    BLOCK: type[Block] = Block
    # names, those of a stage with its number from 0 as {0} or from 1 as {1}
    STEM: ClassVar[tuple[str, ...]]  # what comes before the first stage
    PARTS: ClassVar[tuple[str, ...]]  # of a stage
    BLOCKS: ClassVar[str]
    MIXER = "attn"  # of a block
    KEYS: ClassVar[tuple[str, ...]]  # how keys of its files begin, first that of an embedding
    ONE_WIDTH = False  # whether the architectures differ in their depths alone

    def __init__(
        self,
        place: Mapping[str, Any],
        arch: str | Mapping[str, Any],
        agent_shapes: Any,
        mixers: Any,
        attn_types: Any,
        pretrain_img_size: int = 224,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
    ) -> None:
        sizes = resolve_arch(arch, self.ARCHS)
        dims, ratios = widths(sizes)
        linear = [(1 + ratio / 2) * dim for dim, ratio in zip(dims, ratios, strict=True)]
        grids = agent_grids(agent_shapes, self.AGENT_SHAPES, self.CAPS, linear)
        names = mixer_names(mixers, attn_types, self.LETTERS, sizes["depths"], MIXERS)
        strides = [stage.stride for stage in STAGES]
        check_integer("pretrain_img_size", pretrain_img_size, strides[-1], 4096)
        rates = (drop_path_rate, drop_rate, attn_drop_rate)
        super().__init__(strides, out_indices, frozen_stages, with_cp, *rates)

        self._tables = [(pretrain_img_size // stride,) * 2 for stride in strides]
        self.add_stem(dims[0], drop_rate)
        drop_paths = iter(linear_rates(drop_path_rate, sum(sizes["depths"])))
        for i, stage in enumerate(STAGES[: self.num_stages]):
            blocks = build_blocks(
                *(names[i], dims[i], sizes["num_heads"][i], ratios[i] * dims[i], drop_rate),
                drop_paths=drop_paths,
                eps=self.EPS,
                block=self.BLOCK,
                attn_drop=attn_drop_rate,
                base_grid=stage.base_grid,
                agent_shape=grids[i],
                table_shape=self._tables[i],
                sr_ratio=stage.sr_ratio,
                **place,
            )
            self.add_stage(i, blocks, dims[i - 1] if i else 3, dims[i], drop_rate)
        modules = [self.BLOCKS.format(i, i + 1).removesuffix(".blocks") for i in range(len(STAGES))]
        self.feature_info = FeatureInfo(
            Feature(dims[i], strides[i], modules[i]) for i in self.out_indices
        )
        self.apply(init_linear_and_norm)
        self.freeze()

    def add_stem(self, dim: int, drop_rate: float) -> None:
        """Add what comes before the first stage, of ``dim`` channels, if that is no part of it."""

    def add_stage(
        self, i: int, blocks: nn.ModuleList, in_dim: int, dim: int, drop_rate: float
    ) -> None:
        """Add a stage, counted from 0: its blocks, and the step from ``in_dim`` channels to it."""
        raise NotImplementedError

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """The parts of a stage, counted from 1; the stem for 0."""
        names = [each.format(stage - 1, stage) for each in self.PARTS] if stage else self.STEM
        return [getattr(self, name) for name in names if hasattr(self, name)]

    def is_unused_key(self, key: str) -> bool:
        """The stages that are not built."""
        later = range(self.num_stages, len(STAGES))
        names = tuple(f"{each.format(i, i + 1)}." for i in later for each in self.PARTS)
        return f"{key}.".startswith(names)

    @classmethod
    def recognise(cls, weights: Mapping[str, Tensor]) -> Recognised | None:
        """By keys of the family's own; architectures differ in channels and depths."""
        if not all(any(key.startswith(each) for key in weights) for each in cls.KEYS):
            return None
        blocks = [cls.BLOCKS.format(i, i + 1) for i in range(len(STAGES))]
        depths = [count_of(weights, rf"{re.escape(each)}\.(\d+)\.") for each in blocks]
        embedding = next(weights[key] for key in weights if key.startswith(cls.KEYS[0]))

        def sizes(channels: Sequence[int], depths: Sequence[int]) -> tuple[int, ...]:
            return tuple(depths) if cls.ONE_WIDTH else (*channels[:1], *depths)

        known = {sizes(widths(each)[0], each["depths"]): name for name, each in cls.ARCHS.items()}
        found = sizes(embedding.shape, depths)
        img_size = table_img_size(weights, f"{blocks[0]}.0.{cls.MIXER}", STAGES[0].stride)
        return Recognised(cls, found, known.get(found), img_size, cls.options_at(img_size or 224))


def widths(sizes: Mapping[str, Any]) -> tuple[Sequence[int], Sequence[int]]:
    """Channels, and ratio of the MLPs' hidden channels to them, of each stage."""
    if "embed_dims" in sizes:
        return sizes["embed_dims"], sizes["mlp_ratios"]
    dims = [sizes["embed_dim"] * stage.stride // STAGES[0].stride for stage in STAGES]
    return dims, [MLP_RATIO] * len(dims)
