"""From a checkpoint's dict to the weights of a backbone, loudly.

Published files come in several wrappings and for several image sizes. What fits is taken, tables of
another size are resized, and whatever is then missing or left over is an error, never a warning:
training from noise looks just like training from weights.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.backbones import pvt, swin
from agent_attention.backbones.base import Pyramid
from agent_attention.layers import resize

_WRAPPINGS = ("state_dict", "model")  # mmengine and mmdet 2 files; the authors' ImageNet files
# What agent attention has and softmax attention lacks, and the other way round.
_AGENT = re.compile(r"\.attn\.(?:(?:an|na|ah|aw|ha|wa)_bias|dwc\.(?:weight|bias))$")
_SOFTMAX = re.compile(
    r"\.attn\.(?:(?:sr|norm)\.\w+|relative_position_\w+)$|^cls_token$|^norm\.\w+$"
)


class Fit(NamedTuple):
    """The weights for a model, and what became of each of the file's and the model's tensors."""

    weights: dict[str, Tensor]
    matched: list[str]
    resized: list[str]
    dropped: list[str]  # of the file, of no use to a backbone
    new: list[str]  # of the model, kept as they were initialised

    def __str__(self) -> str:
        return (
            f"{len(self.matched)} tensors matched, {_count('resized', self.resized)}, "
            f"{_count('dropped', self.dropped)}, {_count('new', self.new)}"
        )


def backbone_weights(
    checkpoint: Mapping[str, Any], model: Pyramid, new_attention: bool = False
) -> Fit:
    """The weights of ``model`` out of a checkpoint.

    Args:
        checkpoint: a state dict, bare or under 'state_dict' or 'model'; of a backbone, of an
            ImageNet classifier or of a detector or segmentor (its ``backbone.*`` is taken).
        model: the backbone that will load the weights.
        new_attention: accept weights of plain PVT or Swin; agent tables and depth-wise
            convolutions then keep their initialisation.

    Returns:
        The weights, with exactly the keys and shapes of ``model.state_dict()``, and the report.

    Raises:
        ValueError: if a key is missing or left over or a shape does not fit; the message names
            keys and the architecture the file looks like.
    """
    found = unwrap(checkpoint)
    wanted = model.state_dict()
    used = {key: value for key, value in found.items() if key in wanted and not _is_index(key)}
    rest = [key for key in found if key not in used]
    dropped = [key for key in rest if _droppable(key, model, new_attention)]
    new = [key for key in wanted if key not in used and _may_be_new(key, model, new_attention)]
    resized = {
        key: table
        for key, value in used.items()
        if value.shape != wanted[key].shape
        and (table := _resize_table(key, value, wanted[key].shape)) is not None
    }
    faults = [
        _listing("missing", wanted.keys() - used.keys() - set(new)),
        _listing("left over", set(rest) - set(dropped)),
        _listing("of another shape", _misfits(used, resized, wanted)),
    ]
    if any(faults):
        raise ValueError(
            f"these weights do not fit this {type(model).__name__}: "
            f"{'; '.join(filter(None, faults))}. The file looks like {looks_like(found)}."
        )
    weights = {key: resized.get(key, used.get(key, wanted[key])) for key in wanted}
    matched = [key for key in used if key not in resized]
    told = [key for key in dropped if key not in wanted]  # a buffer both compute is no news
    return Fit(weights, matched, list(resized), told, [k for k in new if not _is_index(k)])


def unwrap(checkpoint: Any, backbone: bool = True) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name.

    Args:
        checkpoint: a state dict, bare or under 'state_dict' or 'model'.
        backbone: of a detector or segmentor, take the backbone alone, under a backbone's names.

    Raises:
        ValueError: if there is no tensor in the checkpoint.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"a checkpoint is a dict of tensors, not a {type(checkpoint).__name__}")
    seen: set[int] = set()  # a pickle may hold itself
    while (inner := _wrapped(checkpoint)) is not None and id(inner) not in seen:
        seen.add(id(inner))
        checkpoint = inner
    found = {
        str(key).removeprefix("module."): value
        for key, value in checkpoint.items()
        if isinstance(value, Tensor)
    }
    if not found:
        raise ValueError("a checkpoint is a dict of tensors, and there is none in this one")
    parts = {
        key.removeprefix("backbone."): value
        for key, value in found.items()
        if key.startswith("backbone.")
    }
    return parts if parts and backbone else found


def _wrapped(checkpoint: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = (checkpoint.get(key) for key in _WRAPPINGS)
    return next((inner for inner in found if isinstance(inner, Mapping)), None)


class Look(NamedTuple):
    """What a backbone's tensors tell of their model; None is not known."""

    family: type[Pyramid]
    sizes: tuple[int, ...]  # depths; Agent-Swin's channels in front
    arch: str | None
    img_size: int | None  # pixels at pre-training; None without agent attention
    window: int | None


def look_at(weights: Mapping[str, Tensor]) -> Look | None:
    """Recognise the backbone that tensors are of, or None."""
    if "patch_embed1.proj.weight" in weights:
        sizes = tuple(_depth(weights, rf"block{i}\.(\d+)\.") for i in range(1, 5))
        known = {arch: tuple(sizes["depths"]) for arch, sizes in pvt.ARCHS.items()}
        return Look(
            pvt.AgentPVT, sizes, known_as(known, sizes), _img_size(weights, "block1.0"), None
        )
    if "patch_embed.proj.weight" in weights and any(key.startswith("layers.0.") for key in weights):
        depths = (_depth(weights, rf"layers\.{i}\.blocks\.(\d+)\.") for i in range(4))
        sizes = (*weights["patch_embed.proj.weight"].shape[:1], *depths)
        known = {arch: (v["embed_dim"], *v["depths"]) for arch, v in swin.ARCHS.items()}
        img_size = _img_size(weights, "layers.0.blocks.0")
        window = _window(weights)
        return Look(swin.AgentSwinTransformer, sizes, known_as(known, sizes), img_size, window)
    return None


def looks_like(weights: Mapping[str, Tensor]) -> str:
    """The architecture that a backbone's tensors have, in words."""
    look = look_at(weights)
    if look is None:
        return f"no backbone known here (its first keys: {', '.join(list(weights)[:3])})"
    name = repr(look.arch) if look.arch else f"of unknown sizes {look.sizes}"
    if look.img_size is None:
        return f"{look.family.__name__} {name} without agent attention (see new_attention)"
    return f"{look.family.__name__} {name} pre-trained at {look.img_size} pixels"


def build_like(weights: Mapping[str, Tensor], pretrain_img_size: int | None = None) -> Pyramid:
    """A backbone of the architecture and image size that tensors are for.

    Args:
        weights: tensors by a backbone's names, as ``unwrap`` gives them.
        pretrain_img_size: another image size, in pixels, than the file's own.

    Raises:
        ValueError: if they are of no published Agent-PVT or Agent-Swin.
    """
    look = look_at(weights)
    if look is None or look.arch is None or look.img_size is None:
        raise ValueError(f"it looks like {looks_like(weights)}")
    size = look.img_size if pretrain_img_size is None else pretrain_img_size
    if look.family is pvt.AgentPVT:
        return pvt.AgentPVT(look.arch, pretrain_img_size=size)
    window = look.window if pretrain_img_size is None else size // 32
    return swin.AgentSwinTransformer(
        look.arch, pretrain_img_size=size, window_size=8 * (window or 7)
    )


def known_as(known: Mapping[str, tuple[int, ...]], sizes: tuple[int, ...]) -> str | None:
    """The name of the known sizes that are equal to these."""
    return next((name for name, value in known.items() if value == sizes), None)


def _depth(weights: Mapping[str, Tensor], pattern: str) -> int:
    return len({match.group(1) for key in weights if (match := re.match(pattern, key))})


def _img_size(weights: Mapping[str, Tensor], first_block: str) -> int | None:
    table = weights.get(f"{first_block}.attn.ah_bias")
    return None if table is None or table.dim() != 5 else 4 * table.shape[3]


def _window(weights: Mapping[str, Tensor]) -> int | None:
    """M of the first window block: its table has (2M - 1)^2 rows."""
    for key, table in weights.items():
        if key.endswith("relative_position_bias_table") and table.dim():
            return (round(table.shape[0] ** 0.5) + 1) // 2
    return None


def _is_index(key: str) -> bool:
    """Whether a buffer is computed from sizes, so that a file's own is of no interest."""
    return key.endswith(("relative_position_index", "attn_mask"))


def _droppable(key: str, model: Pyramid, new_attention: bool) -> bool:
    softmax = new_attention and _SOFTMAX.search(key) is not None
    return key.startswith("head.") or _is_index(key) or model.ignores(key) or softmax


def _may_be_new(key: str, model: Pyramid, new_attention: bool) -> bool:
    agent = new_attention and _AGENT.search(key) is not None
    return _is_index(key) or model.may_lack(key) or agent


def _misfits(
    used: Mapping[str, Tensor], resized: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> list[str]:
    return [
        f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
        for key, value in used.items()
        if key not in resized and value.shape != wanted[key].shape
    ]


def _resize_table(key: str, table: Tensor, shape: torch.Size) -> Tensor | None:
    """A position or bias table for another image size, or None if the key is of no such table."""
    name = key.rsplit(".", 1)[-1]
    if table.dim() != len(shape) or not table.numel() or table.layout is not torch.strided:
        return None
    if name.startswith("pos_embed") and table.shape[::2] == shape[::2]:
        # PVT's own last stage has a class token in front
        tokens = table[:, 1:] if _side(table.shape[1]) is None else table
        return _resize_square(tokens[0].t(), shape[1], "bilinear", (1, 2, 0), shape)
    if name == "relative_position_bias_table" and table.shape[1] == shape[1] and len(table) % 2:
        return _resize_square(table.t(), shape[0], "bicubic", (1, 2, 0), shape)
    axes = {"ah_bias": (3, 4), "aw_bias": (3, 4), "ha_bias": (2, 3), "wa_bias": (2, 3)}.get(name)
    if axes is None or any(table.shape[i] != shape[i] for i in range(len(shape)) if i not in axes):
        return None
    # The run-time resize is separable, so a row table may be resized alone along its rows.
    spatial = table.float() if axes == (3, 4) else table.float().permute(0, 1, 4, 2, 3)
    size = (shape[axes[0]], shape[axes[1]])
    out = resize(spatial.flatten(0, 1), size).unflatten(0, spatial.shape[:2])
    return (out if axes == (3, 4) else out.permute(0, 1, 3, 4, 2)).to(table.dtype)


def _resize_square(
    table: Tensor, count: int, mode: str, order: tuple[int, ...], shape: torch.Size
) -> Tensor | None:
    """(C, S*S) resized to ``count`` positions, moved to ``order`` and ``shape``."""
    old, new = _side(table.shape[1]), _side(count)
    if old is None or new is None:
        return None
    square = table.float().unflatten(1, (old, old))[None]
    out = F.interpolate(square, size=(new, new), mode=mode, align_corners=False)[0]
    return out.permute(order).reshape(shape).to(table.dtype)


def _side(count: int) -> int | None:
    side = round(count**0.5)
    return side if side * side == count else None


def _count(title: str, names: list[str], most: int = 4) -> str:
    return _listing(title, names, most) or f"0 {title}"


def _listing(title: str, names: Iterable[str], most: int = 5) -> str:
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"{len(found)} {title} ({', '.join(found[:most])}{more})" if found else ""
