"""Token mixers: what takes the place of softmax attention, one file an equation."""

from collections.abc import Iterator, Mapping
from inspect import Parameter, signature
from typing import Any

from agent_attention.mixers.aft_conv import AFTConv
from agent_attention.mixers.aft_full import AFTFull
from agent_attention.mixers.aft_local import AFTLocal
from agent_attention.mixers.aft_simple import AFTSimple
from agent_attention.mixers.agent import AgentAttention
from agent_attention.mixers.base import Mixer
from agent_attention.mixers.class_token import ClassTokenAgentAttention
from agent_attention.mixers.diag import DiagAttention
from agent_attention.mixers.focused import FocusedAttention
from agent_attention.mixers.norm import NormAttention
from agent_attention.mixers.reduced import SpatialReductionAttention
from agent_attention.mixers.softmax import SoftmaxAttention
from agent_attention.mixers.stripes import StripeAttention
from agent_attention.mixers.windows import WindowAttention

MIXERS: dict[str, type[Mixer]] = {
    "agent": AgentAttention,
    "softmax": SoftmaxAttention,
    "reduced": SpatialReductionAttention,
    "windows": WindowAttention,
    "stripes": StripeAttention,
    "focused": FocusedAttention,
    "norm": NormAttention,
    "diag": DiagAttention,
    "aft_full": AFTFull,
    "aft_local": AFTLocal,
    "aft_conv": AFTConv,
    "aft_simple": AFTSimple,
}


# Those that have a place for a class token in front of the map's tokens.
WITH_CLASS_TOKEN: dict[str, type[Mixer]] = {
    "agent": ClassTokenAgentAttention,
    "softmax": SoftmaxAttention,
}


def build_mixer(
    mixer: str | Mapping[str, Any],
    dim: int,
    num_heads: int,
    class_token: bool = False,
    **options: Any,
) -> Mixer:
    """A mixer of ``MIXERS``, with those options that its constructor takes.

    Args:
        mixer: key of ``MIXERS``, or a dict with it as ``type`` and options that come first.
        dim: channels C.
        num_heads: heads h.
        class_token: tokens come with a class token; the mixer is one of ``WITH_CLASS_TOKEN``.
        options: what a backbone knows of the place: dropout rates, ``joint_qkv``, ``agent_shape``
            and ``base_grid`` of the stage, the map's ``table_shape`` at pre-training, and what is
            the backbone's own, such as ``sr_ratio`` or ``window`` and ``shift``.
    """
    own = {"type": mixer} if isinstance(mixer, str) else {**mixer}
    kind = (WITH_CLASS_TOKEN if class_token else MIXERS)[own.pop("type")]
    taken = {*_arguments(kind)} - kind.fixed_options
    place = {key: each for key, each in options.items() if key in taken}
    return kind(**{"dim": dim, "num_heads": num_heads, **place, **own})


def _arguments(kind: type[Mixer]) -> Iterator[str]:
    """Names of the arguments of a constructor, and of those that it hands on to."""
    for cls in kind.__mro__[: kind.__mro__.index(Mixer) + 1]:
        if "__init__" in vars(cls):
            parameters = signature(cls).parameters.values()
            yield from (each.name for each in parameters)
            if all(each.kind is not Parameter.VAR_KEYWORD for each in parameters):
                return


__all__ = ["MIXERS", "WITH_CLASS_TOKEN", "AgentAttention", "Mixer", "build_mixer"]
