"""A backbone's weights out of a file, with torch alone."""

from pathlib import Path

from agent_attention.backbones import Backbone
from agent_attention.weights.fit import Fit, backbone_weights
from agent_attention.weights.read import CheckpointError, load_file


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
    checkpoint = load_file(path)
    try:
        fit = backbone_weights(checkpoint, model, new_attention)
    except ValueError as error:
        raise CheckpointError(f"cannot load the backbone from {path}: {error}") from error
    model.load_state_dict(fit.weights)
    return fit
