"""FLatten-PVTv2: the second Pyramid Vision Transformer with focused linear attention.

Beside PVT its patches overlap, its MLPs have a convolution that tells places, so that there are no
position embeddings, and a norm ends each stage.
Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.mixers.agent``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.backbones.block import Block
from agent_attention.backbones.info import ClassifierRules
from agent_attention.backbones.pvt import AGENT_SHAPES, CAPS, WINDOW
from agent_attention.backbones.pyramid import Pyramid
from agent_attention.layers import Mlp, PatchEmbed
from agent_attention.mixers.base import to_map, to_tokens

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


class FLattenPVTv2(Pyramid):
    """FLatten-PVTv2 backbone (arXiv 2308.00442): an image to a pyramid of feature maps.

    Args:
        arch: 'b0' to 'b4', or a dict with the keys of ``ARCHS['b0']``.
        mixers: a name of ``MIXERS`` a stage, or a run such as '2 focused, 2 softmax'.
        agent_shapes: agent grid (a_h, a_w) of each stage, where mixers have agents.
        options: further arguments of ``Pyramid``.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    ARCHS = ARCHS
    CLASSIFIER = ClassifierRules({"out_indices": (3,)})
    AGENT_SHAPES = AGENT_SHAPES
    CAPS = CAPS
    BLOCK = ConvBlock
    STEM = ("patch_embed1",)
    PARTS = ("patch_embed{1}", "block{1}", "norm{1}")
    BLOCKS = "block{1}"
    KEYS = ("patch_embed1.proj.weight", "block1.0.mlp.dwconv.dwconv.weight")

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "b0",
        mixers: Sequence[Any] = ("focused",) * 4,
        agent_shapes: Any = AGENT_SHAPES,
        **options: Any,
    ) -> None:
        super().__init__({"window": WINDOW}, arch, agent_shapes, mixers, None, **options)

    def add_stage(
        self, i: int, blocks: nn.ModuleList, in_dim: int, dim: int, drop_rate: float
    ) -> None:
        """Add overlapping patches, blocks and a norm."""
        embed = PatchEmbed(in_dim, dim, 2, kernel=3) if i else PatchEmbed(in_dim, dim, 4, kernel=7)
        setattr(self, f"patch_embed{i + 1}", embed)
        setattr(self, f"block{i + 1}", blocks)
        setattr(self, f"norm{i + 1}", nn.LayerNorm(dim, eps=self.EPS))

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
