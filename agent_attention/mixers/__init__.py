"""Token mixers: what takes the place of softmax attention, one file an equation."""

from inspect import signature
from typing import Any

from agent_attention.mixers.agent import AgentAttention
from agent_attention.mixers.base import Mixer
from agent_attention.mixers.reduced import SpatialReductionAttention
from agent_attention.mixers.softmax import SoftmaxAttention
from agent_attention.mixers.windows import WindowAttention

MIXERS: dict[str, type[Mixer]] = {
    "agent": AgentAttention,
    "softmax": SoftmaxAttention,
    "reduced": SpatialReductionAttention,
    "windows": WindowAttention,
}


def build_mixer(name: str, dim: int, num_heads: int, **options: Any) -> Mixer:
    """A mixer of ``MIXERS``, with those options that its constructor takes.

    Args:
        name: key of ``MIXERS``.
        dim: channels C.
        num_heads: heads h.
        options: what a backbone knows of the place: dropout rates, ``joint_qkv``, ``agent_shape``
            and ``base_grid`` of the stage, the map's ``table_shape`` at pre-training, and what is
            the backbone's own, such as ``sr_ratio`` or ``window`` and ``shift``.
    """
    kind = MIXERS[name]
    taken = signature(kind).parameters
    return kind(dim, num_heads, **{key: each for key, each in options.items() if key in taken})


__all__ = ["MIXERS", "AgentAttention", "Mixer", "build_mixer"]
