"""The classifiers that the published ImageNet files are of: a backbone and the file's own head."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from agent_attention.backbones import Backbone
from agent_attention.weights.fit import backbone_weights, unwrap
from agent_attention.weights.recognise import looks_like, recognise


class Classifier(nn.Module):
    """Images (B, 3, S, S), normalised -> logits (B, classes), as the authors' classifiers.

    Args:
        backbone: its ``pooled`` features are classified.
        head: from C features to the classes.
        img_size: S, the side of the images, in pixels.
        resize_to: side, in pixels, that images are resized to before a crop of S from the centre.
    """

    def __init__(self, backbone: Backbone, head: nn.Linear, img_size: int, resize_to: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.img_size = img_size
        self.resize_to = resize_to

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone.pooled(x))
        return logits


def build_classifier(checkpoint: Mapping[str, Any]) -> Classifier:
    """The classifier of a published ImageNet file, with all of its weights, in evaluation mode.

    Args:
        checkpoint: what ``load_file`` reads; the averaged weights come first.

    Raises:
        ValueError: if it is of no published classifier, or a tensor is missing or does not fit.
    """
    weights = unwrap(checkpoint)
    found = recognise(weights)
    if found is None or found.arch is None or found.img_size is None:
        raise ValueError(f"it looks like {looks_like(weights)}")
    rules = found.family.CLASSIFIER
    backbone: Backbone = found.family(found.arch, **{**found.options, **rules.options})
    modules: Any = backbone.modules()
    for module in modules:
        if hasattr(module, "shift_small"):  # no classifier shifts windows on maps of one window
            module.shift_small = False
    named = {
        f"{rules.norm}.{key[5:]}" if key.startswith("norm.") else key: value
        for key, value in weights.items()
    }
    fit = backbone_weights(named, backbone)
    if fit.new:  # of a classifier there is nothing that a file may lack
        raise ValueError(f"its norm before the head is missing ({', '.join(sorted(fit.new))})")
    backbone.load_state_dict(fit.weights)
    head = _head(weights, backbone.feature_info.channels()[-1])
    side = found.img_size
    resize_to = side if side in rules.uncropped else side * 256 // 224
    return Classifier(backbone, head, side, resize_to).eval()


def _head(weights: Mapping[str, Tensor], channels: int) -> nn.Linear:
    """The file's own head, for features of so many channels."""
    weight, bias = weights.get("head.weight"), weights.get("head.bias")
    if weight is None or bias is None:
        raise ValueError(
            "it has no classifier's head (head.weight, head.bias): take an ImageNet file as it "
            "was published, not a backbone, detector or segmentor"
        )
    if weight.dim() != 2 or weight.shape[1] != channels or bias.shape != weight.shape[:1]:
        shapes = f"head.weight {tuple(weight.shape)}, head.bias {tuple(bias.shape)}"
        raise ValueError(f"its head does not fit {channels} features: {shapes}")
    head = nn.Linear(channels, len(weight))
    head.load_state_dict({"weight": weight, "bias": bias})
    return head
