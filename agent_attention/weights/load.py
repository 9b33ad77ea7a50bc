"""A backbone's weights out of a file, with torch alone."""

from pathlib import Path
from typing import Any

from agent_attention.backbones import Backbone
from agent_attention.weights.fit import Fit, backbone_weights
from agent_attention.weights.read import CheckpointError, Inert, RefusedCall, load_file


def load_backbone(model: Backbone, path: str | Path, new_attention: bool = False) -> Fit:
    """Load all weights of a backbone from a file, running nothing that is in it.

    Args:
        model: the backbone; weights that do not fit leave it as it was.
        path: a file of ImageNet weights, of a training by mmdet or mmseg, or of plain weights.
        new_attention: accept weights of plain PVT or Swin, see ``backbone_weights``.

    Returns:
        The report; printed it counts the tensors that matched, were resized, dropped or are new.

    Raises:
        CheckpointError: (a ValueError) if the file is missing, cannot be read safely or does not
            fit; the message names file and reason.
    """
    checkpoint = load_file(path, _RUN_STATE)
    try:
        fit = backbone_weights(checkpoint, model, new_attention)
    except ValueError as error:
        raise CheckpointError(f"cannot load the backbone from {path}: {error}") from error
    model.load_state_dict(fit.weights)
    return fit


def _no_method(owner: Any, name: str) -> None:
    """``getattr`` as mmengine writes the losses of a training, which are of no use here."""
    known = isinstance(owner, type) and issubclass(owner, Inert)
    if not known or (owner.__module__, owner.__name__) != _HISTORY:
        raise RefusedCall(f"it looks up {name} in {getattr(owner, '__name__', owner)}")


_HISTORY = ("mmengine.logging.history_buffer", "HistoryBuffer")
_RUN_STATE = {("builtins", "getattr"): _no_method}
