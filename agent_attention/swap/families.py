"""The families whose attention can be swapped, found by the names of their classes.

A key is a package and a class, as in ``timm.Attention``; subclasses that do not write a ``forward``
of their own count too. A family of yours: a subclass of ``Adapter``, and an entry in ``FAMILIES``.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from agent_attention.swap.adapter import Adapter, Size
from agent_attention.swap.diffusion import DiffusersAttention
from agent_attention.swap.fused import MmpretrainAttention, TimmAttention, TransformersAttention
from agent_attention.swap.mixer import MixerAttention
from agent_attention.swap.multihead import MmcvAttention, ReducedAttention, TorchAttention

FAMILIES: dict[str, type[Adapter]] = {
    "agent_attention.SoftmaxAttention": MixerAttention,
    "agent_attention.SpatialReductionAttention": MixerAttention,
    "mmdet.SpatialReductionAttention": ReducedAttention,  # PyramidVisionTransformer and its V2
    "mmseg.EfficientMultiheadAttention": ReducedAttention,  # MixVisionTransformer
    "mmcv.MultiheadAttention": MmcvAttention,  # mmseg's VisionTransformer
    "torch.MultiheadAttention": TorchAttention,
    **{
        f"transformers.{name}{part}": TransformersAttention
        for name in ("ViT", "Dinov2", "Dinov2WithRegisters", "DeiT")
        for part in ("Attention", "SelfAttention")
    },
    "timm.Attention": TimmAttention,  # VisionTransformer
    "mmpretrain.MultiheadAttention": MmpretrainAttention,  # ViT, DeiT, DINOv2
    "diffusers.Attention": DiffusersAttention,  # UNet2DConditionModel
}

_BIAS = (
    "it has a relative position bias, which has no place in a swap; its windows are small as well"
)
_OTHER = "it is no softmax attention of all tokens"
REFUSED: dict[str, str] = {
    "agent_attention.WindowAttention": _BIAS,
    "agent_attention.Mixer": _OTHER,
    **{f"{package}.WindowMSA": _BIAS for package in ("mmdet", "mmseg", "mmpretrain")},
    "mmpretrain.BEiTAttention": _BIAS,
    "timm.WindowAttention": _BIAS,
    "transformers.SwinSelfAttention": _BIAS,
    "transformers.BeitSelfAttention": _BIAS,
    "transformers.SamVisionAttention": _BIAS,
}


class Found(NamedTuple):
    """One attention of a model: with an adapter, or with why there is none."""

    name: str
    module: nn.Module
    adapter: Adapter | None = None
    why: str = ""


def find_attentions(model: nn.Module, size: Size = None) -> list[Found]:
    """All attentions of a model, in order; those of unknown classes too, by their name."""
    found: list[Found] = []
    for name, module in model.named_modules():
        if any(name.startswith(f"{each.name}.") or not each.name for each in found):
            continue  # a part of an attention
        key = _key_of(module)
        kind = FAMILIES.get(key)
        if kind is not None:
            if kind.concerns(name, module):
                why = kind.refusal(name, module, model, size)
                adapter = None if why else kind(name, module, model, size)
                found.append(Found(name, module, adapter, why or ""))
        elif key in REFUSED:
            found.append(Found(name, module, why=REFUSED[key]))
        elif _looks_like_attention(module):
            found.append(Found(name, module, why=f"{key} is of no known family"))
    return found


def explain_none(found: Sequence[Found], asked: bool) -> str:
    """Why there is nothing to swap, and what could be."""
    if asked:
        return "where asks for no attention of the model"
    rows = {type(each.module).__name__: each for each in reversed(found)}
    whys = "; ".join(f"{kind} {each.name or 'itself'}: {each.why}" for kind, each in rows.items())
    return (
        f"no attention of the model can be swapped ({whys or 'there is none'}). "
        f"Known are {', '.join(FAMILIES)}; agent_attention.swap.FAMILIES takes more"
    )


def _key_of(module: nn.Module) -> str:
    """The first known name of a class, from the module's own down to who wrote its ``forward``."""
    keys = []
    for kind in type(module).__mro__:
        keys.append(f"{kind.__module__.partition('.')[0]}.{kind.__name__}")
        if keys[-1] in FAMILIES or keys[-1] in REFUSED:
            return keys[-1]
        if "forward" in vars(kind):
            break
    return keys[0]


def _looks_like_attention(module: nn.Module) -> bool:
    """Whether a module is named an attention and has none in it."""

    def is_named_so(each: nn.Module) -> bool:
        name = type(each).__name__.lower()
        return "attention" in name or "attn" in name or name.endswith("msa")

    inner = (each for each in module.modules() if each is not module)
    return (
        is_named_so(module)
        and not any(map(is_named_so, inner))
        and next(module.parameters(), None) is not None
    )
