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

from agent_attention import pvt, swin
from agent_attention.layers import resize
from agent_attention.pyramid import Pyramid

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
    return Fit(weights, matched, list(resized), dropped, [k for k in new if not _is_index(k)])


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a backbone, classifier or whole model, with the names a backbone has.

    Raises:
        ValueError: if there is no tensor in the checkpoint.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(
            f"a checkpoint is a dict of tensors, this is a {type(checkpoint).__name__}"
        )
    for wrapping in _WRAPPINGS:
        if isinstance(checkpoint.get(wrapping), Mapping):
            return unwrap(checkpoint[wrapping])
    found = {
        str(key).removeprefix("module."): value
        for key, value in checkpoint.items()
        if isinstance(value, Tensor)
    }
    if not found:
        raise ValueError("a checkpoint is a dict of tensors, this one has none")
    inner = {
        key.removeprefix("backbone."): value
        for key, value in found.items()
        if key.startswith("backbone.")
    }
    return inner or found


def looks_like(weights: Mapping[str, Tensor]) -> str:
    """The architecture that a backbone's tensors have, in words."""
    if "patch_embed1.proj.weight" in weights:
        return f"Agent-PVT {_pvt_size(weights)}{_trained_at(weights, 'block1.0')}"
    if "patch_embed.proj.weight" in weights and any(key.startswith("layers.0.") for key in weights):
        return f"Agent-Swin {_swin_size(weights)}{_trained_at(weights, 'layers.0.blocks.0')}"
    return f"no backbone known here (its first keys: {', '.join(list(weights)[:3])})"


def _pvt_size(weights: Mapping[str, Tensor]) -> str:
    depths = tuple(_depth(weights, rf"block{i}\.(\d+)\.") for i in range(1, 5))
    return _name({arch: sizes["depths"] for arch, sizes in pvt.ARCHS.items()}, depths)


def _swin_size(weights: Mapping[str, Tensor]) -> str:
    dim = int(weights["patch_embed.proj.weight"].shape[0])
    depths = tuple(_depth(weights, rf"layers\.{i}\.blocks\.(\d+)\.") for i in range(4))
    known = {arch: (sizes["embed_dim"], *sizes["depths"]) for arch, sizes in swin.ARCHS.items()}
    return _name(known, (dim, *depths))


def _name(known: Mapping[str, tuple[int, ...]], sizes: tuple[int, ...]) -> str:
    names = [repr(arch) for arch, value in known.items() if value == sizes]
    return names[0] if names else f"of unknown sizes {sizes}"


def _depth(weights: Mapping[str, Tensor], pattern: str) -> int:
    blocks = {match.group(1) for key in weights if (match := re.match(pattern, key))}
    return len(blocks)


def _trained_at(weights: Mapping[str, Tensor], first_block: str) -> str:
    table = weights.get(f"{first_block}.attn.ah_bias")
    if table is None:
        return " without agent attention (such weights need new_attention=True)"
    return f" pre-trained at {4 * table.shape[3]} pixels"


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
    if name.startswith("pos_embed") and table.shape[2] == shape[2]:
        # PVT's own last stage has a class token in front
        tokens = table[:, 1:] if _side(table.shape[1]) is None else table
        return _resize_square(tokens[0].t(), shape[1], "bilinear", (1, 2, 0), shape)
    if name == "relative_position_bias_table" and table.shape[1] == shape[1]:
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
