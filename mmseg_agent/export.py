"""What is exported of a segmentor: its logits, or its labels."""

from typing import Any

from torch import Tensor, nn

from agent_attention.compute.symbolic import crop
from mmengine_agent.errors import UserError
from mmengine_agent.export.modules import STRIDE, Exported


class Segmentor(Exported):
    """mmseg's ``EncoderDecoder``, as it tests whole images of one size."""

    least = STRIDE + 1

    def __init__(self, model: Any, normalise: nn.Module, labels: bool = False) -> None:
        super().__init__(model, normalise)
        self.labels = labels

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to logits (B, classes, H, W), or to labels (B, H, W) of int64."""
        x = self.prepare(image)
        logits = self.model.encode_decode(x, [{"img_shape": x.shape[2:]}])
        logits = crop(logits, (image.shape[2], image.shape[3]))
        if not self.labels:
            return {"logits": logits}
        if logits.shape[1] > 1:
            return {"labels": logits.argmax(1)}
        return {"labels": (logits[:, 0].sigmoid() > self.model.decode_head.threshold).long()}


def exported(model: nn.Module, normalise: nn.Module, labels: bool) -> Exported:
    """A segmentor that can be exported.

    Raises:
        UserError: if it is no encoder and decoder.
    """
    if not hasattr(model, "encode_decode"):
        raise UserError(
            f"cannot export a {type(model).__name__}: segmentors with an encode_decode can be "
            "exported"
        )
    return Segmentor(model, normalise, labels)
