"""Which backbone a file's tensors are of: each family knows its own files."""

from collections.abc import Mapping

from torch import Tensor

from agent_attention.backbones import BACKBONES, Backbone
from agent_attention.backbones.info import Recognised


def recognise(weights: Mapping[str, Tensor]) -> Recognised | None:
    """What tensors, by a backbone's names, tell of their model; None if no family knows them."""
    found = (family.recognise(weights) for family in BACKBONES.values())
    return next((each for each in found if each is not None), None)


def looks_like(weights: Mapping[str, Tensor]) -> str:
    """The architecture that a backbone's tensors have, in words."""
    found = recognise(weights)
    if found is None:
        return f"no backbone known here (its first keys: {', '.join(list(weights)[:3])})"
    name = repr(found.arch) if found.arch else f"of unknown sizes {found.sizes}"
    if found.img_size is None:
        return f"{found.family.__name__} {name} without agent attention (see new_attention)"
    return f"{found.family.__name__} {name} pre-trained at {found.img_size} pixels"


def build_like(weights: Mapping[str, Tensor], pretrain_img_size: int | None = None) -> Backbone:
    """A backbone of the architecture and image size that tensors are for.

    Args:
        weights: tensors by a backbone's names, as ``unwrap`` gives them.
        pretrain_img_size: another image size, in pixels, than the file's own.

    Raises:
        ValueError: if they are of no published backbone.
    """
    found = recognise(weights)
    if found is None or found.arch is None or found.img_size is None:
        raise ValueError(f"it looks like {looks_like(weights)}")
    options = found.options
    if pretrain_img_size is not None:
        options = found.family.options_at(pretrain_img_size)
    model: Backbone = found.family(found.arch, **options)
    return model
