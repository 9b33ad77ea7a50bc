"""From a checkpoint's dict to the weights of a backbone, loudly.

Published files come in several wrappings; whatever is then missing or left over is an error,
never a warning, because training from noise looks just like training from weights.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

_WRAPPINGS = ("state_dict", "model")  # mmengine and mmdet 2 files; the authors' ImageNet files


def backbone_weights(checkpoint: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The weights of ``model`` out of a checkpoint.

    Args:
        checkpoint: a state dict, bare or under 'state_dict' or 'model'; of a backbone, an ImageNet
            classifier (its ``head`` is left out) or a detector or segmentor (its ``backbone``).
        model: the backbone that will load the weights.

    Returns:
        A state dict with exactly the keys and shapes of ``model.state_dict()``.

    Raises:
        ValueError: if any key is missing or left over or any shape differs; the keys are named.
    """
    weights = _unwrap(checkpoint)
    if any(key.startswith("backbone.") for key in weights):
        weights = _below("backbone.", weights)
    else:
        weights = {key: value for key, value in weights.items() if not key.startswith("head.")}

    wanted = model.state_dict()
    faults = [
        _listing("missing", wanted.keys() - weights.keys()),
        _listing("left over", weights.keys() - wanted.keys()),
        _listing(
            "of another shape",
            (
                f"{key} {tuple(weights[key].shape)} instead of {tuple(wanted[key].shape)}"
                for key in wanted.keys() & weights.keys()
                if weights[key].shape != wanted[key].shape
            ),
        ),
    ]
    if any(faults):
        raise ValueError(
            f"these weights do not fit {type(model).__name__}: {'; '.join(filter(None, faults))}. "
            "Check arch, out_indices and pretrain_img_size against the model they were made with."
        )
    return {key: weights[key] for key in wanted}


def _unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    for wrapping in _WRAPPINGS:
        if isinstance(checkpoint.get(wrapping), Mapping):
            return _unwrap(checkpoint[wrapping])
    return {key.removeprefix("module."): value for key, value in checkpoint.items()}


def _below(prefix: str, weights: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(prefix): w for key, w in weights.items() if key.startswith(prefix)}


def _listing(title: str, names: Iterable[str], most: int = 5) -> str:
    found = sorted(names)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return f"{len(found)} {title} ({', '.join(found[:most])}{more})" if found else ""
