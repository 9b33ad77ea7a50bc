"""What is exported of a segmentor: its logits, probabilities or labels."""

from functools import partial
from typing import Any

import torch
from mmseg.models.utils import Upsample
from torch import Tensor, nn
from torch.nn import functional

from agent_attention.compute.symbolic import crop
from mmengine_agent.export.mask_heads import make_recordable
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
        self.sums_masks = hasattr(getattr(model, "decode_head", None), "mask_embed")  # of queries
        if self.sums_masks:
            make_recordable(model)
            model.decode_head.predict = partial(classify_pixels, model.decode_head)

    def facts(self) -> dict[str, str]:
        return {**super().facts(), "task": "semantic segmentation"}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) to ``outputs``.

        The usual ones are logits (B, classes, H, W); labels are (B, H, W) of int64, probabilities
        (B, classes, H, W): of one class its own, by sigmoid.
        """
        x, sizes = self.enter(image)
        logits = self.model.encode_decode(x, [{"img_shape": x.shape[2:]}])
        logits = crop(logits, sizes.image)
        if sizes.picture is not sizes.image:
            align = self.model.align_corners
            logits = functional.interpolate(logits, sizes.picture, None, "bilinear", align)
        one = logits.shape[1] == 1
        if self.outputs == "probabilities":
            return {"probabilities": self.shares(logits)}
        if self.outputs != "labels":
            return {"logits": logits}
        if one:
            return {"labels": (logits[:, 0].sigmoid() > self.model.decode_head.threshold).long()}
        return {"labels": logits.argmax(1)}

    def shares(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes, of logits (B, classes, H, W)."""
        if self.sums_masks:
            return logits / logits.sum(1, keepdim=True).clamp(min=1e-6)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def classify_pixels(head: Any, maps: Any, metas: Any, test_cfg: Any) -> Tensor:
    """What mmseg's ``Mask2FormerHead`` and ``MaskFormerHead`` predict: (B, classes, H, W).

    Each query's mask counts for its classes; the sums are between 0 and the number of queries.
    """
    all_scores, all_masks = head(maps, None)
    scores = all_scores[-1].softmax(-1)[..., :-1]  # the last class is none
    size = metas[0]["img_shape"]
    masks = functional.interpolate(all_masks[-1], size=size, mode="bilinear", align_corners=False)
    return torch.einsum("bqc,bqhw->bchw", scores, masks.sigmoid())
