"""From a checkpoint to the weights of a backbone, loudly.

Published files come in several wrappings and for several image sizes. What fits is taken, tables of
another size are resized, and whatever is then missing or left over is an error, never a warning:
training from noise looks just like training from weights.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.backbones import Backbone
from agent_attention.compute.symbolic import resize
from agent_attention.weights.read import CheckpointError, load_file
from agent_attention.weights.recognise import looks_like
from agent_attention.weights.regroup import regroup

# The averaged weights, which the authors score; mmengine and mmdet 2 files; their ImageNet files.
_WRAPPINGS = ("state_dict_ema", "state_dict", "model")
# What is a mixer's own: all but the projections, which softmax attention has too.
_OF_MIXER = re.compile(r"\.attns\.\d+\.|\.attn\.(?!(?:q|kv|qkv|proj)\.)")
_IN_PLAIN = re.compile(r"\.(?:relative_position_\w+|get_v\.\w+)$")  # of plain Swin and CSwin
_OF_CLASSIFIER = re.compile(r"^cls_token$|^norm\.\w+$")
# The axes of a map in the bias tables of agent attention.
_AXES = {"ah_bias": (3, 4), "aw_bias": (3, 4), "ha_bias": (2, 3), "wa_bias": (2, 3)}


class Fit(NamedTuple):
    """The weights for a model, and what became of each of the file's and the model's tensors."""

    weights: dict[str, Tensor]
    matched: list[str]
    resized: list[str]
    dropped: list[str]  # of the file, of no use to a backbone
    new: list[str]  # of the model, kept as they were initialised

    def __str__(self) -> str:
        rest = (_listing(name, getattr(self, name)) for name in ("resized", "dropped", "new"))
        return f"{len(self.matched)} tensors matched, {', '.join(rest)}"


def load_backbone(model: Backbone, path: str | Path, new_attention: bool = False) -> Fit:
    """Load all weights of a backbone from a file, running nothing that is in it.

    Args:
        model: the backbone; weights that do not fit leave it as it was.
        path: a file of ImageNet weights, of a training by mmdet or mmseg, or of plain weights.
        new_attention: accept weights of another mixer's model, see ``backbone_weights``.

    Returns:
        The report; printed it counts the tensors that matched, were resized, dropped or are new.

    Raises:
        CheckpointError: (a ValueError) if the file is missing, cannot be read safely or does not
            fit; the message names file and reason.
    """
    checkpoint = load_file(path)
    try:
        fit = backbone_weights(checkpoint, model, new_attention)
    except ValueError as error:
        raise CheckpointError(f"cannot load the backbone from {path}: {error}") from error
    model.load_state_dict(fit.weights)
    return fit


def backbone_weights(
    checkpoint: Mapping[str, Any], model: Backbone, new_attention: bool = False
) -> Fit:
    """The weights of ``model`` out of a checkpoint.

    Args:
        checkpoint: a state dict, bare or under 'state_dict' or 'model', or the average of one
            under 'state_dict_ema', which comes first; of a backbone, of an ImageNet classifier or
            of a detector or segmentor (its ``backbone.*`` is taken).
        model: the backbone that will load the weights.
        new_attention: accept weights of another mixer's model, such as plain PVT or Swin; all but
            the projections of the mixers then keeps its initialisation.

    Returns:
        The weights, with exactly the keys and shapes of ``model.state_dict()``, and the report.

    Raises:
        ValueError: if a key is missing or left over or a shape does not fit; the message names
            keys and the architecture the file looks like.
    """
    found, wanted = unwrap(checkpoint), model.state_dict()
    if new_attention:
        found = regroup(found, wanted)
    fit = Fit(dict(wanted), [], [], [], [])
    left: list[str] = []
    misfits: list[str] = []
    for key, value in found.items():
        if key not in wanted:
            other = new_attention and (_OF_MIXER.search(key) or _OF_CLASSIFIER.search(key))
            unused = key.startswith("head.") or _is_index(key) or model.is_unused_key(key) or other
            (fit.dropped if unused else left).append(key)
        elif _is_index(key):
            continue  # both compute it
        elif value.shape == wanted[key].shape:
            fit.matched.append(key)
            fit.weights[key] = value
        elif (table := resize_table(key, value, wanted[key].shape)) is not None:
            fit.resized.append(key)
            fit.weights[key] = table
        else:
            misfits.append(f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}")
    missing: list[str] = []
    for key in wanted:
        if key not in found and not _is_index(key):
            own = new_attention and _is_new(key, found, wanted)
            optional = model.is_optional_key(key) or own
            (fit.new if optional else missing).append(key)
    faults = {"missing": missing, "left over": left, "of another shape": misfits}
    if any(faults.values()):
        listed = "; ".join(_listing(title, names) for title, names in faults.items() if names)
        raise ValueError(
            f"these weights do not fit this {type(model).__name__}: {listed}. "
            f"The file looks like {looks_like(found)}."
        )
    return fit


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
    for key in _WRAPPINGS * 2:  # one may be in the other
        if isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    found = {
        str(key).removeprefix("module."): value
        for key, value in checkpoint.items()
        if isinstance(value, Tensor)
    }
    if not found:
        raise ValueError("a checkpoint is a dict of tensors, and there is none in this one")
    prefix = "backbone."
    part = {key[len(prefix) :]: found[key] for key in found if key.startswith(prefix)}
    return part if part and backbone else found


def resize_table(key: str, table: Tensor, shape: torch.Size) -> Tensor | None:
    """A position or bias table for another image size, or None if the key is of no such table."""
    name = key.rpartition(".")[2]
    if table.dim() != len(shape) or not table.numel() or table.layout is not torch.strided:
        return None
    if name.startswith(("pos_embed", "positional_encoding")) and table.shape[::2] == shape[::2]:
        # PVT's are resized as its authors do in a run, all others as theirs do when they load them
        mode = "bilinear" if name[-1].isdigit() else "bicubic"
        return _resize_tokens(table, mode, shape)
    if name == "relative_position_bias_table" and table.shape[1] == shape[1] and len(table) % 2:
        return _resize_square(table, "bicubic", shape)
    axes = _AXES.get(name, ())
    if not axes or any(table.shape[i] != shape[i] for i in range(len(shape)) if i not in axes):
        return None
    # The run-time resize is separable, so a row table may be resized alone along its rows.
    maps = table.float().movedim(axes, (3, 4))
    size = (shape[axes[0]], shape[axes[1]])
    out = resize(maps.flatten(0, 1), size).unflatten(0, maps.shape[:2])
    return out.movedim((3, 4), axes).to(table.dtype)


def _resize_tokens(table: Tensor, mode: str, shape: torch.Size) -> Tensor | None:
    """(1, S*S, C), or with a class token in front, which is kept as it is, or dropped."""
    had, has = (_side(count) is None for count in (table.shape[1], shape[1]))
    if has and not had:
        return None
    map_shape = torch.Size((1, shape[1] - has, shape[2]))
    out = _resize_square(table[0, had:], mode, map_shape)
    return torch.cat([table[:, :1], out], 1) if has and out is not None else out


def _resize_square(table: Tensor, mode: str, shape: torch.Size) -> Tensor | None:
    """(S*S, C) resized to the positions of a table of that shape."""
    old, new = _side(len(table)), _side(shape.numel() // table.shape[1])
    if old is None or new is None:
        return None
    square = table.float().t().unflatten(1, (old, old))[None]
    out = F.interpolate(square, size=(new, new), mode=mode, align_corners=False)[0]
    return out.permute(1, 2, 0).reshape(shape).to(table.dtype)


def _side(count: int) -> int | None:
    side = round(count**0.5)
    return side if side * side == count else None


def _is_new(key: str, found: Iterable[str], wanted: Iterable[str]) -> bool:
    """Whether another mixer's model need not have a key: all but what the file has elsewhere."""
    if key.endswith((".attn.q.weight", ".attn.q.bias")):
        return f"{key.rpartition('.q.')[0]}.k.weight" in wanted  # see ``regroup``
    if _IN_PLAIN.search(key):
        last = key.split(".")[-1]
        return not any(other.endswith(f".{last}") and _IN_PLAIN.search(other) for other in found)
    return _OF_MIXER.search(key) is not None


def _is_index(key: str) -> bool:
    """Whether a buffer is computed from sizes, so that a file's own is of no interest."""
    return key.endswith(("relative_position_index", "attn_mask"))


def _listing(title: str, names: Iterable[str], most: int = 4) -> str:
    """'6 new (a, b, c, d and 2 more)'."""
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"{len(found)} {title}" + (f" ({', '.join(found[:most])}{more})" if found else "")
