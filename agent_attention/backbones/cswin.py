"""Agent-CSwin: the CSwin Transformer with agent attention in its early stages.

A tensor passes four stages; the first two use agent attention over the whole map, the third
stripes, the last softmax attention of all tokens. A block has the projections, and its mixers work
on a share of the channels each, beside a depth-wise convolution of the values (``get_v``).
Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.mixers.agent``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair, check_integer
from agent_attention.backbones.block import Block
from agent_attention.backbones.info import ClassifierRules
from agent_attention.backbones.pyramid import Pyramid
from agent_attention.mixers import MIXERS
from agent_attention.mixers.base import Mixer, to_map, to_tokens

# Sizes of the published models; their depths are not those of plain CSwin (arXiv 2107.00652).
ARCHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 64, "depths": (2, 4, 18, 1), "num_heads": (2, 4, 8, 16)},
    "small": {"embed_dim": 64, "depths": (3, 6, 29, 2), "num_heads": (2, 4, 8, 16)},
    "base": {"embed_dim": 96, "depths": (3, 6, 29, 2), "num_heads": (4, 8, 16, 32)},
}
_EPS = 1e-5


class ConvEmbed(nn.Module):
    """The first convolution, which overlaps, then LayerNorm; under the published names 0 and 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.add_module("0", nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=2))
        self.add_module("2", nn.LayerNorm(dim, eps=_EPS))

    def forward(self, x: Tensor) -> tuple[Tensor, Pair]:
        """(B, 3, H, W) -> tokens (B, N, C) and the new (H, W)."""
        conv, norm = self.children()
        x = conv(x)
        return norm(to_tokens(x)), (x.shape[2], x.shape[3])


class Merge(nn.Module):
    """The step to the next stage: a convolution of stride 2, then LayerNorm."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_dim, dim, kernel_size=3, stride=2, padding=1)
        self.norm = nn.LayerNorm(dim, eps=_EPS)

    def forward(self, x: Tensor, size: Pair) -> tuple[Tensor, Pair]:
        """Tokens (B, N, C) of ``size`` (H, W) -> (B, N/4, 2C) and the new size, rounded up."""
        x = self.conv(to_map(x, size))
        return self.norm(to_tokens(x)), (x.shape[2], x.shape[3])


class CSwinBlock(Block):
    """A block that has the projections itself; its mixers share the channels.

    Raises:
        ValueError: if the mixer needs or makes projections of its own.
    """

    def __init__(self, dim: int, attn: Mixer, mlp_dim: int, drop: float, *args: Any) -> None:
        super().__init__(dim, None, mlp_dim, drop, *args)
        if not attn.takes_projections or hasattr(attn, "proj"):
            allowed = [name for name, kind in MIXERS.items() if kind.takes_projections]
            raise ValueError(f"{type(attn).__name__} cannot be in CSwin; mixers are {allowed}")
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attns = nn.ModuleList(attn.branches())
        for branch in self.attns:
            if not hasattr(branch, "get_v"):
                share = dim // len(self.attns)
                branch.get_v = nn.Conv2d(share, share, kernel_size=3, padding=1, groups=share)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(drop)
        self.has_lepe = attn.branches() == [attn]  # stripes add theirs themselves

    def mix(self, x: Tensor, size: Pair) -> Tensor:
        """The attention of CSwin, of tokens (B, N, C)."""
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        branches: Any = self.attns
        shares = zip(branches, *(t.chunk(len(branches), -1) for t in (q, k, v)), strict=True)
        outs = [attn(tuple(share), size) for attn, *share in shares]
        if self.has_lepe:
            outs = [outs[0] + to_tokens(branches[0].get_v(to_map(v, size)))]
        out: Tensor = self.proj_drop(self.proj(torch.cat(outs, -1)))
        return out


class AgentCSwin(Pyramid):
    """Agent-CSwin backbone: an image to a pyramid of feature maps.

    Args:
        arch: 'tiny', 'small', 'base', or a dict with the keys of ``ARCHS['tiny']``.
        agent_shapes: agent grid (a_h, a_w) of each stage; the default is the base grid, p x p;
            or what ``agent_grids`` takes.
        mixers: a name of ``MIXERS`` a stage, or a run such as '2 agent, 2 focused'.
        window_size: side of the nominal window, as Agent-Swin's: stripes are an eighth of it
            wide, 7 at least. The default follows from ``pretrain_img_size``: 7 at 224 pixels.
        pretrain_img_size: side, in pixels, of the images the tables are for.
        options: further arguments of ``Pyramid``.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    ARCHS = ARCHS
    CLASSIFIER = ClassifierRules({"out_indices": (3,)}, norm="norm4")
    EPS = _EPS
    BLOCK = CSwinBlock
    STEM = ("stage1_conv_embed",)
    PARTS = ("merge{0}", "stage{1}", "norm{1}")
    BLOCKS = "stage{1}"
    MIXER = "attns.0"
    KEYS: ClassVar[tuple[str, ...]] = ("stage1_conv_embed.0.weight",)

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        agent_shapes: Any = None,
        mixers: Sequence[Any] = ("agent", "agent", "stripes", "softmax"),
        window_size: int | None = None,
        pretrain_img_size: int = 224,
        **options: Any,
    ) -> None:
        check_integer("pretrain_img_size", pretrain_img_size, 32, 4096)
        width = pretrain_img_size // 32  # M: 7 at 224 pixels, 12 at 384
        if window_size is not None:
            check_integer("window_size", window_size, 1, 4096)
            width = max(7, window_size // 8)
        place = {"window": width, "detail": False, "projections": False}
        options["pretrain_img_size"] = pretrain_img_size
        super().__init__(place, arch, agent_shapes, mixers, None, **options)

    def add_stem(self, dim: int, drop_rate: float) -> None:
        """Add the first convolution."""
        self.stage1_conv_embed = ConvEmbed(dim)

    def add_stage(
        self, i: int, blocks: nn.ModuleList, in_dim: int, dim: int, drop_rate: float
    ) -> None:
        """Add the step to a stage, its blocks and an output norm."""
        if i:
            setattr(self, f"merge{i}", Merge(in_dim, dim))
        setattr(self, f"stage{i + 1}", blocks)
        if i in self.out_indices:
            setattr(self, f"norm{i + 1}", nn.LayerNorm(dim, eps=_EPS))

    def maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> normalised maps (B, C*2^i, H/s_i, W/s_i), s_i = 4, 8, 16, 32.

        Sizes are rounded as convolutions with padding do: the first to the nearest, then up.
        """
        x, size = self.stage1_conv_embed(x)
        outs = []
        for i in range(self.num_stages):
            if i:
                x, size = getattr(self, f"merge{i}")(x, size)
            x = self.run(getattr(self, f"stage{i + 1}"), x, size)
            if i in self.out_indices:
                outs.append(to_map(getattr(self, f"norm{i + 1}")(x), size).contiguous())
        return outs

    def is_unused_key(self, key: str) -> bool:
        """The classifier's norm, the stages that are not built and the norms of maps not wanted."""
        return re.match(r"norm\d?\.", key) is not None or super().is_unused_key(key)

    def is_optional_key(self, key: str) -> bool:
        """The output norms, which a classifier does not have."""
        return re.match(r"norm\d\.", key) is not None
