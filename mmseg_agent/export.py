"""What is exported of a segmentor: its logits, probabilities or labels."""

from functools import partial
from typing import Any

from mmseg.models.utils import Upsample
from torch import Tensor, nn
from torch.nn import functional

from agent_attention.compute.symbolic import crop
from mmengine_agent.export.modules import STRIDE, Exported

_UPSAMPLE = ("size", "scale_factor", "mode", "align_corners")


class Segmentor(Exported):
    """mmseg's ``EncoderDecoder``, as it tests whole images of one size."""

    least = STRIDE + 1

    def __init__(self, model: Any, prepare: nn.Module, outputs: str = "usual") -> None:
        super().__init__(model, prepare)
        self.outputs = outputs
        for each in model.modules():
            if isinstance(each, Upsample):  # which makes a number of an open size
                how = {name: getattr(each, name) for name in _UPSAMPLE}
                each.forward = partial(functional.interpolate, **how)

    def facts(self) -> dict[str, str]:
        return {**super().facts(), "task": "semantic segmentation"}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to ``outputs``.

        The usual ones are logits (B, classes, H, W); labels are (B, H, W) of int64, probabilities
        (B, classes, H, W): of one class its own, by sigmoid.
        """
        x = self.prepare(image)
        logits = self.model.encode_decode(x, [{"img_shape": x.shape[2:]}])
        logits = crop(logits, (image.shape[2], image.shape[3]))
        one = logits.shape[1] == 1
        if self.outputs == "probabilities":
            return {"probabilities": logits.sigmoid() if one else logits.softmax(1)}
        if self.outputs != "labels":
            return {"logits": logits}
        if one:
            return {"labels": (logits[:, 0].sigmoid() > self.model.decode_head.threshold).long()}
        return {"labels": logits.argmax(1)}
