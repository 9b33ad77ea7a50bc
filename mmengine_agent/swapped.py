"""A backbone of a config with softmax attention swapped, for training, testing and all else."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from agent_attention.swap import Agent, Nystrom, PooledKeys, swap_attention
from mmengine_agent.errors import UserError

FORMS: dict[str, Any] = {"agent": Agent, "nystrom": Nystrom, "pooled_keys": PooledKeys}


def SwappedAttention(backbone: Any, swaps: Sequence[Mapping[str, Any]]) -> nn.Module:
    """A backbone whose named layers have another attention, with its own parameters and keys.

    In a config it stands in place of the backbone, which becomes its argument:

        backbone=dict(
            type='SwappedAttention',
            backbone=dict(type='VisionTransformer', ...),
            swaps=[dict(form='agent', grid=(12, 12), layers=['layers.0.attn'])])

    Args:
        backbone: the settings of the backbone.
        swaps: a form of ``FORMS`` with its options, and the names of the ``layers`` that have it,
            as ``tools/swap.py`` lists them.

    Raises:
        UserError: if a form or a layer is not known.
    """
    model: nn.Module = MODELS.build(backbone)
    forms: dict[str, Any] = {}
    for swap in swaps:
        options = {key: value for key, value in swap.items() if key != "layers"}
        forms |= dict.fromkeys(swap["layers"], build_form(options))
    try:
        swap_attention(model, forms, min_tokens=0, force=True, training=True)
    except ValueError as error:
        raise UserError(f"SwappedAttention: {error}") from error
    return model


def build_form(settings: Mapping[str, Any]) -> Any:
    """A form of ``agent_attention.swap``, such as ``dict(form='agent', grid=(12, 12))``.

    Raises:
        UserError: if there is no such form, or it does not take these options.
    """
    options = dict(settings)
    name = options.pop("form", None)
    if name not in FORMS:
        raise UserError(f"form: there is no {name!r}; {', '.join(FORMS)}")
    try:
        return FORMS[name](**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"form {name}: {error}") from error
