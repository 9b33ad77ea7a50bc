"""This package's own softmax mixers, which get the size of the map with each call."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.compute.symbolic import join_heads
from agent_attention.mixers.base import Mixer
from agent_attention.mixers.reduced import SpatialReductionAttention
from agent_attention.mixers.softmax import SoftmaxAttention
from agent_attention.swap.adapter import Adapter, Size


class MixerAttention(Adapter):
    """``SoftmaxAttention`` and ``SpatialReductionAttention``: a form in the place of ``mix``.

    What is replaced is the choice of an executor for it, so that blocks still run as they did.
    """

    attribute = "mix_by_executor"
    knows_size = True

    @classmethod
    def refusal(cls, name: str, module: nn.Module, model: nn.Module, size: Size) -> str | None:
        known = (SoftmaxAttention.mix, SpatialReductionAttention.mix)
        return None if type(module).mix in known else "its class has a mix of its own"  # type: ignore[attr-defined]

    def dropout(self) -> float:
        return float(self.module.attn_drop)

    def run(self, projected: Sequence[Tensor], size: Pair) -> Tensor:
        """Queries (B, T, C), keys and values (B, m, C) of a map (H, W) -> tokens (B, T, C)."""
        q, k, v = projected
        self.map = size
        chosen = self.choose(q.shape[1], k.shape[1])
        if chosen is None:
            return self.original(projected, size)
        assert isinstance(self.module, Mixer)
        heads: list[Any] = [self.module.split_heads(x) for x in (q, k, v)]
        return join_heads(self.compute(chosen, *heads))
