"""A whole detector as it is exported: an image in, objects out."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from mmdet_agent.export.compare import compare, predict
from mmengine_agent.export.check import Load
from mmengine_agent.export.modules import Exported, Sizes

# of a model, the first that it has finds the objects
_PARTS = ("roi_head", "panoptic_head", "bbox_head")


class Detector(Exported):
    """A detector of mmdet's from images to objects.

    A head that is to be exported is a subclass of this, and a line in ``HEADS``: it writes
    ``detect``, in operators that ``torch.export`` records for open sizes.
    """

    score_threshold: Tensor  # a tensor of the file, so that a reader can choose another one

    def __init__(self, model: Any, prepare: nn.Module) -> None:
        super().__init__(model, prepare)
        settings = object_head(model).test_cfg or {}
        self.has_threshold = "score_thr" in settings
        self.register_buffer("score_threshold", torch.tensor(float(settings.get("score_thr", 0))))

    def facts(self) -> dict[str, str]:
        # mmdet's own word for a detector that makes masks
        masks = self.model.with_mask or hasattr(self.model, "panoptic_head")
        masks = masks or hasattr(object_head(self.model), "num_dyconvs")  # RTMDet-Ins
        return {**super().facts(), "task": "instance segmentation" if masks else "detection"}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) to objects, as ``detect`` gives them."""
        return self.detect(*self.enter(image))

    @torch.no_grad()
    def check(self, reference: Any, load: Load, image: Tensor, tolerance: float) -> str:
        least = self.usable_threshold(image)
        settings = object_head(reference).test_cfg
        before = dict(settings or {})
        if self.has_threshold:
            settings.score_thr = least
        try:
            wanted = predict(reference, *self.enter(image))
        finally:
            if self.has_threshold:
                settings.score_thr = before["score_thr"]
        run = load({"score_threshold": least} if self.has_threshold else {})
        most = (settings or {}).get("max_per_img")
        return str(compare(wanted, run(image), least, tolerance, most))

    def usable_threshold(self, image: Tensor) -> float:
        """The threshold of scores, or one above which there are objects to compare."""
        usual = float(self.score_threshold)
        if not self.has_threshold or (self(image)["scores"] > 0).any():
            return usual
        self.score_threshold.zero_()
        scores = self(image)["scores"]
        self.score_threshold.fill_(usual)
        return float(scores[scores > 0].median()) if (scores > 0).any() else 0.0

    @abstractmethod
    def detect(self, x: Tensor, sizes: Sizes) -> dict[str, Tensor]:
        """Objects in a batch, as the head's own ``predict`` finds them.

        Args:
            x: (B, 3, H', W'), normalised, and padded right and bottom as the config does.
            sizes: of the image in it.

        Returns:
            boxes: float32 (B, N, 4), x1 y1 x2 y2 in pixels of ``sizes.picture``.
            scores: float32 (B, N), falling.
            labels: int64 (B, N).
            masks: bool (B, N, *sizes.picture), of instance segmentation alone.

            N is the number in the image that has most; the others are filled up with boxes,
            scores and masks of 0, and labels of -1.
        """


def object_head(model: Any) -> Any:
    """The part of a detector that finds its objects."""
    heads = (getattr(model, part, None) for part in _PARTS)
    return next((each for each in heads if each is not None), model)


__all__ = ["Detector", "Sizes", "object_head"]
