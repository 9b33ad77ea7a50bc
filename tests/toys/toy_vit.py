"""A backbone of one stage, to see that a file and a line are all it takes."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from agent_attention.arguments import Pair, check_agent_shapes, resolve_arch
from agent_attention.backbones.base import Backbone
from agent_attention.backbones.block import Block
from agent_attention.backbones.info import Feature, FeatureInfo, Recognised, count_of
from agent_attention.layers import PatchEmbed
from agent_attention.mixers import build_mixer


class ToyViT(Backbone):
    """One stage, at stride 16, of one mixer."""

    ARCHS = {"tiny": {"embed_dim": 8, "depth": 2, "num_heads": 2}}  # noqa: RUF012

    def __init__(
        self,
        arch: Any = "tiny",
        agent_shapes: Sequence[Pair] = ((3, 3),),
        out_indices: Sequence[int] = (0,),
        frozen_stages: int = -1,
        with_cp: bool = False,
        pretrain_img_size: int = 224,
        mixer: str = "agent",
    ) -> None:
        sizes = resolve_arch(arch, self.ARCHS)
        grids = check_agent_shapes(agent_shapes, 1)
        super().__init__((16,), out_indices, frozen_stages, with_cp)
        dim = sizes["embed_dim"]
        self.patch_embed = PatchEmbed(3, dim, 16)
        self.blocks = nn.ModuleList(
            Block(dim, build_mixer(mixer, dim, 2, agent_shape=grids[0]), 16, 0.0, 0.0, 1e-6)
            for _ in range(sizes["depth"])
        )
        self.feature_info = FeatureInfo([Feature(dim, 16, "blocks")])
        self.freeze()

    def maps(self, x: Tensor) -> list[Tensor]:
        x, size = self.patch_embed(x)
        x = self.run(self.blocks, x, size)
        return [x.mT.unflatten(2, size)]

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        return [self.blocks] if stage else [self.patch_embed]

    def is_unused_key(self, key: str) -> bool:
        return key.startswith("norm.")

    @classmethod
    def recognise(cls, weights: Mapping[str, Tensor]) -> Recognised | None:
        if "blocks.0.attn.an_bias" not in weights:
            return None
        depth = count_of(weights, r"blocks\.(\d+)\.")
        arch = {2: "tiny"}.get(depth)
        return Recognised(cls, (depth,), arch, 224, cls.options_at(224))
