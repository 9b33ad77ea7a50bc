"""What is exported of a segmentor: its logits, probabilities or labels."""

from functools import partial
from typing import Any

import torch
from mmseg.models.utils import Upsample
from torch import Tensor, nn
from torch.nn import functional

from agent_attention.compute.symbolic import crop
from mmengine_agent.errors import UserError
from mmengine_agent.export.check import Load
from mmengine_agent.export.mask_heads import make_recordable
from mmengine_agent.export.modules import STRIDE, Exported
from mmseg_agent.export.compare import compare, predict

_UPSAMPLE = ("size", "scale_factor", "mode", "align_corners")


class Segmentor(Exported):
    """mmseg's ``EncoderDecoder``, as it tests whole images of one size.

    Raises:
        UserError: if the config asks for a sliding window.
    """

    least = STRIDE + 1

    def __init__(self, model: Any, prepare: nn.Module, outputs: str = "usual") -> None:
        super().__init__(model, prepare)
        settings = getattr(model, "test_cfg", None) or {}
        if settings.get("mode", "whole") != "whole":
            raise UserError(
                f"cannot export the windows in which the config tests ({dict(settings)}); "
                "whole images can be: --cfg-options model.test_cfg.mode=whole"
            )
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
        if self.outputs == "labels":
            return {"labels": self.labels(logits)}
        if self.outputs == "probabilities":
            return {"probabilities": self.shares(logits)}
        return {"logits": logits}

    def labels(self, logits: Tensor) -> Tensor:
        """Labels (B, H, W) of the pixels, of logits (B, classes, H, W)."""
        if logits.shape[1] == 1:
            return (self.shares(logits)[:, 0] > self.model.decode_head.threshold).long()
        return logits.argmax(1)

    def shares(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes, of logits (B, classes, H, W)."""
        if self.sums_masks:
            return logits / logits.sum(1, keepdim=True).clamp(min=1e-6)
        return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)

    @torch.no_grad()
    def check(self, reference: Any, load: Load, image: Tensor, tolerance: float) -> str:
        labels, scores = predict(reference, *self.enter(image))
        if scores.shape[1] == 1:
            wanted = {"labels": labels, "probabilities": scores}
        else:
            wanted = {"labels": labels, "logits": scores, "probabilities": self.shares(scores)}
        found = load({})(image)
        if (logits := found.get("logits")) is not None:
            found = {**found, "labels": self.labels(logits), "probabilities": self.shares(logits)}
        return compare(wanted, found, tolerance)


def classify_pixels(head: Any, maps: Any, metas: Any, test_cfg: Any) -> Tensor:
    """What mmseg's ``Mask2FormerHead`` and ``MaskFormerHead`` predict: (B, classes, H, W).

    Each query's mask counts for its classes; the sums are between 0 and the number of queries.
    """
    all_scores, all_masks = head(maps, None)
    scores = all_scores[-1].softmax(-1)[..., :-1]  # the last class is none
    size = metas[0]["img_shape"]
    masks = functional.interpolate(all_masks[-1], size=size, mode="bilinear", align_corners=False)
    return torch.einsum("bqc,bqhw->bchw", scores, masks.sigmoid())
