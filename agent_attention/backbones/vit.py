"""Agent-DeiT as a dense backbone: a plain Vision Transformer with agent attention.

One stage, of stride 16, whose blocks see all tokens and a class token. The maps after some of the
blocks are given to a neck, such as mmseg's ``MultiLevelNeck``.
Parameter names are the published checkpoints' own.
Shape letters: see ``agent_attention.mixers.agent``.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

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
    count_of,
    table_img_size,
)
from agent_attention.compute.symbolic import pad_ends, resize_tokens
from agent_attention.layers import init_linear_and_norm, init_table, linear_rates
from agent_attention.mixers import MIXERS, WITH_CLASS_TOKEN
from agent_attention.mixers.base import to_map
from agent_attention.mixers.grids import agent_grids

# DeiT's own sizes (arXiv 2012.12877, table 1); p, the side of the grid of base agents.
ARCHS: dict[str, dict[str, int]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3, "base_grid": 7},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6, "base_grid": 7},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12, "base_grid": 9},
}
PUBLISHED_MIXERS = {"base": "4 agent, 8 softmax"}  # of all others: agent
MLP_RATIO = 4
_PATCH = 16
_WINDOW = 7  # M where blocks use windows
_EPS = 1e-6


class AgentViT(Backbone):
    """Agent-DeiT backbone: an image to maps of stride 16, from several depths.

    Args:
        arch: 'tiny', 'small', 'base', or a dict with the keys of ``ARCHS['tiny']``.
        agent_shape: agent grid (a_h, a_w); the default is the base grid, p x p. For 'bounded', a
            number or a rule see ``agent_grids``.
        mixers: of all blocks: a name of ``MIXERS`` or a run such as '4 agent, 8 softmax', alone or
            in a tuple. The default is the published one.
        class_token: have a class token. The default is to have one if all mixers take one, as
            'agent' and 'softmax' do.
        final_norm: normalise the last map, as the classifier does.
        pretrain_img_size: side, in pixels, of the images the position and bias tables are for.
        out_indices: blocks whose maps are returned; later ones than the last are not built.
        frozen_stages: -1 trains everything; k freezes the embeddings and the first k blocks. The
            other arguments are those of ``Backbone``.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    ARCHS = ARCHS
    CLASSIFIER = ClassifierRules({"out_indices": (11,), "final_norm": True})

    def __init__(
        self,
        arch: str | Mapping[str, Any] = "tiny",
        agent_shape: Any = None,
        mixers: str | Sequence[Any] | None = None,
        class_token: bool | None = None,
        final_norm: bool = False,
        pretrain_img_size: int = 224,
        out_indices: Sequence[int] = (2, 5, 8, 11),
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        dim, depth = sizes["embed_dim"], sizes["depth"]
        heads, p = sizes["num_heads"], sizes["base_grid"]
        shapes = [agent_shape] if isinstance(agent_shape, (tuple, list)) else agent_shape
        (grid,) = agent_grids(shapes, [(p, p)], [1], [(1 + MLP_RATIO / 2) * dim])
        if mixers is None:
            mixers = PUBLISHED_MIXERS.get(arch if isinstance(arch, str) else "", "agent")
        mixers = [mixers] if isinstance(mixers, (str, Mapping)) else mixers
        (names,) = mixer_names(mixers, None, {}, [depth], MIXERS)
        known = all(_name(each) in WITH_CLASS_TOKEN for each in names)
        if class_token and not known:
            raise ValueError(f"class_token=True takes the mixers {[*WITH_CLASS_TOKEN]} alone")
        check_integer("pretrain_img_size", pretrain_img_size, _PATCH, 4096)
        rates = (drop_path_rate, drop_rate, attn_drop_rate)
        super().__init__([_PATCH] * depth, out_indices, frozen_stages, with_cp, *rates)

        side = pretrain_img_size // _PATCH
        self._table = (side, side)
        self.has_class_token = known if class_token is None else class_token
        if self.has_class_token:
            self.cls_token = init_table(1, 1, dim)
        self.pos_embed = init_table(1, side * side + self.has_class_token, dim)
        self.patch_embed = PatchProjection(dim)
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = build_blocks(
            *(names[: self.num_stages], dim, heads, MLP_RATIO * dim, drop_rate),
            drop_paths=iter(linear_rates(drop_path_rate, depth)),
            eps=_EPS,
            window=_WINDOW,
            attn_drop=attn_drop_rate,
            joint_qkv=True,
            base_grid=p,
            agent_shape=grid,
            table_shape=self._table,
            class_token=self.has_class_token,
        )
        self.norm = nn.LayerNorm(dim, eps=_EPS) if final_norm else None
        self.feature_info = FeatureInfo(
            Feature(dim, _PATCH, f"blocks.{i}") for i in self.out_indices
        )
        self.apply(init_linear_and_norm)
        self.freeze()

    def maps(self, x: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> maps (B, C, H/16, W/16) after the blocks of ``out_indices``.

        Images are padded right and bottom with zeros, so sizes round up.
        """
        outs, size = self.tokens(x)
        return [to_map(out[:, self.has_class_token :], size).contiguous() for out in outs]

    def pooled(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> the class token (B, C) after the last of ``out_indices``."""
        return self.tokens(x)[0][-1][:, 0]

    def tokens(self, x: Tensor) -> tuple[list[Tensor], Pair]:
        """Images (B, 3, H, W) -> tokens after the blocks of ``out_indices``, and their map's size.

        They are (B, N, C), behind the class token if there is one.
        """
        x, size = self.patch_embed(pad_ends(x, _PATCH, (2, 3)))
        x = self.pos_drop(self.embed(x, size))
        outs, done = [], 0
        for i in self.out_indices:
            x = self.run(self.blocks[done : i + 1], x, size)
            done = i + 1
            outs.append(self.norm(x) if self.norm is not None and done == self.num_stages else x)
        return outs, size

    def embed(self, x: Tensor, size: Pair) -> Tensor:
        """Patches (B, N, C) with their positions, behind the class token if there is one."""
        front = int(self.has_class_token)
        if front:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)
        return x + resize_tokens(self.pos_embed, self._table, size, "bicubic", front)

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """A block; the embeddings for 0."""
        if stage:
            return [self.blocks[stage - 1]]
        tables = [self.pos_embed, *([self.cls_token] if self.has_class_token else [])]
        return [self.patch_embed, self.pos_drop, *tables]

    def is_unused_key(self, key: str) -> bool:
        """The blocks that are not built, the norm and the class token where there is none here."""
        block = re.match(r"blocks\.(\d+)\.", key)
        if block is not None:
            return int(block.group(1)) >= self.num_stages
        norm = key.startswith("norm.") and self.norm is None
        return norm or (key == "cls_token" and not self.has_class_token)

    @classmethod
    def recognise(cls, weights: Mapping[str, Tensor]) -> Recognised | None:
        """DeiT's files have blocks and one position embedding; sizes are channels and depth."""
        embed = weights.get("patch_embed.proj.weight")
        if embed is None or "pos_embed" not in weights or "blocks.0.attn.qkv.weight" not in weights:
            return None
        sizes = (embed.shape[0], count_of(weights, r"blocks\.(\d+)\."))
        known = {(each["embed_dim"], each["depth"]): name for name, each in ARCHS.items()}
        img_size = table_img_size(weights, "blocks.0.attn", _PATCH)
        return Recognised(cls, sizes, known.get(sizes), img_size, cls.options_at(img_size or 224))


class PatchProjection(nn.Module):
    """Patches of 16 x 16 pixels as tokens: a convolution with stride = kernel, without a norm."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=_PATCH, stride=_PATCH)

    def forward(self, x: Tensor) -> tuple[Tensor, Pair]:
        """(B, 3, H, W) -> tokens (B, N, C) and the new (H, W)."""
        x = self.proj(x)
        return x.permute(0, 2, 3, 1).flatten(1, 2), (x.shape[2], x.shape[3])


def _name(mixer: Any) -> str:
    return mixer if isinstance(mixer, str) else str(mixer["type"])
