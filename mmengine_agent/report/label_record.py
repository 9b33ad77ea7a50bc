"""The part that records of label maps share: maps kept as small PNGs, and their colours."""

from typing import Any

import cv2
import numpy as np

from mmengine_agent.draw import Array, Colour, class_colours, paint_labels
from mmengine_agent.report.record import Record

NO_LABEL = 65535  # in the maps kept for pictures: pixels that are left clear


class LabelMapRecord(Record):
    """A record whose pictures show label maps, one for each of ``content``'s sides."""

    def paint(self, picture: Array, scale: np.ndarray, content: Any, side: str) -> None:
        """Lay the classes' colours over a picture; labels beyond the classes are left clear."""
        labels = cv2.imdecode(np.frombuffer(content[side], np.uint8), cv2.IMREAD_UNCHANGED)
        assert labels is not None  # it is our own
        fitting = cv2.resize(labels, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        paint_labels(picture, fitting, self._colours())

    def legend(self) -> list[tuple[str, str]]:
        """Names of the classes, with their colours as HTML has them."""
        colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in self._colours()]
        return [*zip(self.dataset_meta["classes"], colours, strict=True)]

    def _colours(self) -> tuple[Colour, ...]:
        return class_colours(len(self.dataset_meta["classes"]), [self.dataset_meta.get("palette")])


def pack_labels(labels: np.ndarray) -> bytes:
    """A label map (H, W) of numbers up to ``NO_LABEL`` as 16-bit PNG."""
    return cv2.imencode(".png", labels.astype(np.uint16))[1].tobytes()
