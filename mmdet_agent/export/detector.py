"""A whole detector as it is exported: an image in, objects out."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from mmengine_agent.export.modules import Exported


# of a model, the first that it has finds the objects
_PARTS = ("roi_head", "panoptic_head", "bbox_head")


class Sizes(NamedTuple):
    """Sizes (H, W) of an image on its way; each may be symbolic while a graph is recorded."""

    image: Pair  # that the model sees, without padding: boxes are clipped to it
    picture: Pair  # as it was given: results are in its pixels

    def to_picture(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) x1 y1 x2 y2 in pixels of the image to those of the picture."""
        if self.image is self.picture:
            return boxes
        rows, columns = (old / new for new, old in zip(self.image, self.picture, strict=True))
        scale = [torch.as_tensor(each, dtype=boxes.dtype) for each in (columns, rows) * 2]
        return boxes * torch.stack(scale)


class Detector(Exported):
    """A detector of mmdet's from images to objects.

    A head that is to be exported is a subclass of this, and a line in ``HEADS``: it writes
    ``detect``, in operators that ``torch.export`` records for open sizes.
    """

    batch: ClassVar[str] = "any"  # or "1", of a head that takes no more
    score_threshold: Tensor  # a tensor of the file, so that a reader can choose another one

    def __init__(self, model: Any, prepare: nn.Module) -> None:
        super().__init__(model, prepare)
        least = float((object_head(model).test_cfg or {}).get("score_thr", 0))
        self.register_buffer("score_threshold", torch.tensor(least))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) to objects, as ``detect`` gives them."""
        size = (image.shape[2], image.shape[3])
        return self.detect(self.prepare(image), Sizes(size, size))

    @abstractmethod
    def detect(self, x: Tensor, sizes: Sizes) -> dict[str, Tensor]:
        """Objects in a batch, as the head's own ``predict`` finds them.

        Args:
            x: (B, 3, H', W'), normalised, and padded right and bottom to multiples of 32.
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
