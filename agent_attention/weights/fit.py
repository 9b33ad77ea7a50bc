"""From a checkpoint's dict to the weights of a backbone, loudly.

Published files come in several wrappings and for several image sizes. What fits is taken, tables of
another size are resized, and whatever is then missing or left over is an error, never a warning:
training from noise looks just like training from weights.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from agent_attention.backbones import Backbone
from agent_attention.weights.recognise import looks_like
from agent_attention.weights.resize import resize_table

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
    checkpoint: Mapping[str, Any], model: Backbone, new_attention: bool = False
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
        and (table := resize_table(key, value, wanted[key].shape)) is not None
    }
    misfits = [
        f"{key} {tuple(value.shape)} instead of {tuple(wanted[key].shape)}"
        for key, value in used.items()
        if key not in resized and value.shape != wanted[key].shape
    ]
    faults = [
        _listing("missing", wanted.keys() - used.keys() - set(new)),
        _listing("left over", set(rest) - set(dropped)),
        _listing("of another shape", misfits),
    ]
    if any(faults):
        raise ValueError(
            f"these weights do not fit this {type(model).__name__}: "
            f"{'; '.join(filter(None, faults))}. The file looks like {looks_like(found)}."
        )
    weights = {key: resized.get(key, used.get(key, wanted[key])) for key in wanted}
    matched = [key for key in used if key not in resized]
    # buffers that both compute are not worth reporting
    dropped = [key for key in dropped if key not in wanted]
    return Fit(weights, matched, list(resized), dropped, [k for k in new if not _is_index(k)])


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


def _is_index(key: str) -> bool:
    """Whether a buffer is computed from sizes, so that a file's own is of no interest."""
    return key.endswith(("relative_position_index", "attn_mask"))


def _droppable(key: str, model: Backbone, new_attention: bool) -> bool:
    softmax = new_attention and _SOFTMAX.search(key) is not None
    return key.startswith("head.") or _is_index(key) or model.is_unused_key(key) or softmax


def _may_be_new(key: str, model: Backbone, new_attention: bool) -> bool:
    agent = new_attention and _AGENT.search(key) is not None
    return _is_index(key) or model.is_optional_key(key) or agent


def _count(title: str, names: list[str], most: int = 4) -> str:
    return _listing(title, names, most) or f"0 {title}"


def _listing(title: str, names: Iterable[str], most: int = 5) -> str:
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"{len(found)} {title} ({', '.join(found[:most])}{more})" if found else ""
