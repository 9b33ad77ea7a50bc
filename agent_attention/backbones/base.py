"""What the backbones share. Shape letters: see ``agent_attention.mixers.agent``."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agent_attention.arguments import (
    Pair,
    check_image,
    check_integer,
    check_out_indices,
    check_rate,
)
from agent_attention.backbones import lean
from agent_attention.backbones.info import ClassifierRules, FeatureInfo, Recognised
from agent_attention.compute.symbolic import assume_multiple_of

Self = TypeVar("Self", bound="Backbone")


class Backbone(nn.Module):
    """Stages of blocks, from images to a map for each stage that is asked for.

    A backbone defines ``ARCHS``, ``feature_info``, ``maps`` and ``stage_modules``, and how its
    published files are recognised and which of their keys it does not need. With a line in
    ``BACKBONES`` it is found by whatever works with backbones.

    Args:
        strides: of each stage's map, in pixels of the image; one number a stage of the family.
        out_indices: stages whose maps are returned; later stages than the last are not built.
        frozen_stages: -1 trains everything; k freezes the stem and the first k stages.
        with_cp: recompute blocks in the backward pass (gradient checkpointing) to save memory.
        drop_path_rate: stochastic depth of the last block; earlier ones grow linearly from 0.
        drop_rate: dropout after position embeddings, projections and MLP layers.
        attn_drop_rate: dropout on attention maps.
    """

    ARCHS: Mapping[str, Mapping[str, Any]] = {}  # sizes by the name that ``arch`` takes
    CLASSIFIER = ClassifierRules({})  # of the published ImageNet files
    feature_info: FeatureInfo  # of the maps that ``forward`` returns
    whole_strides = True  # whether exported graphs of open sizes take multiples of 32 alone

    def __init__(
        self,
        strides: Sequence[int],
        out_indices: Sequence[int],
        frozen_stages: int,
        with_cp: bool,
        drop_path_rate: float = 0.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.out_indices = check_out_indices(out_indices, len(self.strides))
        self.num_stages = max(self.out_indices) + 1
        check_integer("frozen_stages", frozen_stages, -1, self.num_stages)
        check_rate("drop_path_rate", drop_path_rate)
        check_rate("drop_rate", drop_rate)
        check_rate("attn_drop_rate", attn_drop_rate)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) -> one map (B, C_i, H_i, W_i) for each of ``out_indices``.

        Raises:
            ValueError: if the image has other channels than the first convolution takes, or is
                smaller than the coarsest stride.
        """
        check_image(x.shape, self.strides[-1], self._channels())
        if self.whole_strides:
            x = assume_multiple_of(self.strides[-1], x)
        return tuple(self.maps(x))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maps of ``forward``, in order."""
        raise NotImplementedError

    def pooled(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> what the authors' classifiers hand to their head, (B, C)."""
        return self.maps(x)[-1].mean((2, 3))

    def stage_modules(self, stage: int) -> list[nn.Module | nn.Parameter]:
        """What to freeze of a stage, counted from 1; 0 is the stem."""
        raise NotImplementedError

    @classmethod
    def recognise(cls, weights: Mapping[str, Tensor]) -> Recognised | None:
        """The model that tensors, by a backbone's names, are of; None: another family's."""
        return None

    @classmethod
    def options_at(cls, img_size: int) -> dict[str, Any]:
        """Arguments for a model that is pre-trained on images of this side, in pixels."""
        return {"pretrain_img_size": img_size}

    def is_unused_key(self, key: str) -> bool:
        """Whether a key of a published checkpoint is of no use to this model."""
        return False

    def is_optional_key(self, key: str) -> bool:
        """Whether a key of this model is in no published ImageNet checkpoint."""
        return False

    def train(self: Self, mode: bool = True) -> Self:
        """Set training mode, keep frozen stages in evaluation mode, return self."""
        super().train(mode)
        for part in self._frozen():
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def freeze(self) -> None:
        """Freeze the first ``frozen_stages`` stages; called at the end of a constructor."""
        for part in self._frozen():
            part.requires_grad_(False)
        self.train(self.training)

    def run(self, blocks: nn.ModuleList, x: Tensor, size: Pair) -> Tensor:
        """Tokens (B, N, C) through blocks, each recomputed in the backward pass if ``with_cp``."""
        if lean.takes(blocks, x):
            return lean.run(blocks, x, size)
        for block in blocks:
            if self.with_cp and self.training:
                x = checkpoint(block, x, size, use_reentrant=False)
            else:
                x = block(x, size)
        return x

    def _frozen(self) -> list[nn.Module | nn.Parameter]:
        return [p for stage in range(self.frozen_stages + 1) for p in self.stage_modules(stage)]

    def _channels(self) -> int | None:
        """Channels that the first convolution takes (it may have been replaced), where known."""
        stem = self.stage_modules(0)[0]
        layers = stem.modules() if isinstance(stem, nn.Module) else ()
        channels = (getattr(layer, "in_channels", None) for layer in layers)
        return next((each for each in channels if each is not None), None)
