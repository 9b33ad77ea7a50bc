"""Agent-Swin: the Swin Transformer with agent attention in its early stages (paper, section 4.4).

A tensor passes four stages of blocks; between them ``PatchMerging`` halves the resolution. Stages
whose maps are large use agent attention over the whole map, the later ones Swin's windows.
Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.mixers.agent``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair, check_integer
from agent_attention.backbones.info import ClassifierRules, Recognised
from agent_attention.backbones.pyramid import BASE_GRIDS, Pyramid
from agent_attention.compute.symbolic import pad_ends
from agent_attention.layers import PatchEmbed
from agent_attention.mixers.base import to_map

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
AGENT_SHAPES = ((9, 9), (12, 12), (14, 14), (7, 7))  # of COCO and ADE20K
CAPS = (3, 3, 2, 1)  # with which ``GridRule`` gives them
_PATCH = 4  # pixels
_EPS = 1e-5


class AgentSwinTransformer(Pyramid):
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
        mixers: in place of ``attn_types``, see ``Pyramid``, which has the other arguments too.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    ARCHS = ARCHS
    CLASSIFIER = ClassifierRules(
        {"agent_shapes": BASE_GRIDS, "out_indices": (3,)}, norm="norm3", uncropped=(384,)
    )
    AGENT_SHAPES = AGENT_SHAPES
    CAPS = CAPS
    LETTERS = {"A": "agent", "B": "windows"}  # noqa: RUF012
    EPS = _EPS
    STEM = ("patch_embed", "pos_drop")
    PARTS = ("layers.{0}", "norm{0}")
    BLOCKS = "layers.{0}.blocks"
    KEYS: ClassVar[tuple[str, ...]] = ("patch_embed.proj.weight", "layers.0.")
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
        check_integer("window_size", window_size, 1, 4096)
        if attn_types is None:
            attn_types = ATTN_TYPES.get(str(arch), ATTN_TYPES["tiny"])
        rates = (drop_path_rate, drop_rate, attn_drop_rate)
        shared = (pretrain_img_size, out_indices, *rates, frozen_stages, with_cp)
        window, shift_small = max(7, window_size // 8), self.shift_small
        place = {"window": window, "shift_small": shift_small, "joint_qkv": True}
        super().__init__(place, arch, agent_shapes, mixers, attn_types, *shared)

    def add_stem(self, dim: int, drop_rate: float) -> None:
        """Add the patch embedding."""
        self.patch_embed = PatchEmbed(3, dim, _PATCH)
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList()

    def add_stage(
        self, i: int, blocks: nn.ModuleList, in_dim: int, dim: int, drop_rate: float
    ) -> None:
        """Add blocks, the step to the next stage unless there is none, and an output norm."""
        last = i == self.num_stages - 1
        self.layers.append(Layer(blocks, None if last else PatchMerging(dim)))
        if i in self.out_indices:
            setattr(self, f"norm{i}", nn.LayerNorm(dim, eps=_EPS))

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
        layer = [self.layers[stage - 1]] if stage else []
        return [*layer, *super().stage_modules(stage)]

    def is_unused_key(self, key: str) -> bool:
        """The classifier's norm, the stages that are not built and the norms of maps not wanted."""
        behind = rf"norm\d?\.|layers\.{self.num_stages - 1}\.downsample\."
        return re.match(behind, key) is not None or super().is_unused_key(key)

    def is_optional_key(self, key: str) -> bool:
        """The output norms, which a classifier does not have."""
        return re.match(r"norm\d\.", key) is not None

    @classmethod
    def recognise(cls, weights: Mapping[str, Tensor]) -> Recognised | None:
        """Swin's files have layers, and tables that tell the windows."""
        found = super().recognise(weights)
        if found is None:
            return None
        return found._replace(options={**found.options, "window_size": 8 * _window(weights)})

    @classmethod
    def options_at(cls, img_size: int) -> dict[str, Any]:
        """The image's side, and windows that grow with it as in the published models."""
        return {"pretrain_img_size": img_size, "window_size": img_size // 32 * 8}


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
