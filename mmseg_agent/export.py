"""What is exported of a segmentor: its logits, or its labels."""

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

    def __init__(self, model: Any, prepare: nn.Module, labels: bool = False) -> None:
        super().__init__(model, prepare)
        self.labels = labels
        for each in model.modules():
            if isinstance(each, Upsample):  # which makes a number of an open size
                how = {name: getattr(each, name) for name in _UPSAMPLE}
                each.forward = partial(functional.interpolate, **how)

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
