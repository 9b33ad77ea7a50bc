"""Agent-PVT: the Pyramid Vision Transformer with agent attention (paper, table 2 and appendix).

A tensor passes four stages; each is a patch embedding, a position embedding and blocks of
attention and MLP. Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.mixers.agent``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from agent_attention.backbones.info import ClassifierRules
from agent_attention.backbones.pyramid import BASE_GRIDS, STAGES, Pyramid
from agent_attention.compute.symbolic import resize_tokens
from agent_attention.layers import PatchEmbed, init_table
from agent_attention.mixers.base import to_map

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
AGENT_SHAPES = ((12, 12), (16, 16), (28, 28), (28, 28))  # of COCO and ADE20K
CAPS = (4,) * len(STAGES)  # with which ``GridRule`` gives them
WINDOW = 7  # M where a stage uses windows


class AgentPVT(Pyramid):
    """Agent-PVT backbone: an image to a pyramid of feature maps.

    Args:
        arch: 'tiny', 'small', 'medium', 'large', or a dict with the keys of ``ARCHS['tiny']``.
        agent_shapes: agent grid (a_h, a_w) of each stage. The default is the one published for
            detection and segmentation; ((3, 3), (4, 4), (7, 7), (7, 7)) is that of ImageNet. For
            'bounded', a number or a rule see ``agent_grids``.
        attn_types: a letter a stage: 'A' agent attention, 'B' softmax with spatial reduction; or
            a run such as '2A16B', two agent blocks and then sixteen of the other.
        mixers: in place of ``attn_types``, see ``Pyramid``, which has the other arguments too.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    ARCHS = ARCHS
    CLASSIFIER = ClassifierRules({"agent_shapes": BASE_GRIDS, "out_indices": (3,)})
    AGENT_SHAPES = AGENT_SHAPES
    CAPS = CAPS
    LETTERS = {"A": "agent", "B": "reduced"}  # noqa: RUF012
    STEM = ("patch_embed1", "pos_embed1", "pos_drop1")
    PARTS = ("patch_embed{1}", "pos_embed{1}", "pos_drop{1}", "block{1}")
    BLOCKS = "block{1}"
    KEYS: ClassVar[tuple[str, ...]] = ("patch_embed1.proj.weight", "pos_embed1")
    ONE_WIDTH = True

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
        rates = (drop_path_rate, drop_rate, attn_drop_rate)
        shared = (pretrain_img_size, out_indices, *rates, frozen_stages, with_cp)
        super().__init__({"window": WINDOW}, arch, agent_shapes, mixers, attn_types, *shared)

    def add_stage(
        self, i: int, blocks: nn.ModuleList, in_dim: int, dim: int, drop_rate: float
    ) -> None:
        """Add patch and position embedding, and blocks."""
        rows, columns = self._tables[i]
        setattr(self, f"patch_embed{i + 1}", PatchEmbed(in_dim, dim, 2 if i else 4))
        setattr(self, f"pos_drop{i + 1}", nn.Dropout(drop_rate))
        setattr(self, f"pos_embed{i + 1}", init_table(1, rows * columns, dim))
        setattr(self, f"block{i + 1}", blocks)

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
