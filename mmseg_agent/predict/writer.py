"""A class for every pixel, as one label map an image."""

from pathlib import Path
from typing import Any

import numpy as np

from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.files import write_image
from mmengine_agent.predict.tiles import Grid
from mmengine_agent.predict.writer import Gather
from mmseg_agent.predict.draw import LabelPainter
from mmseg_agent.predict.gather import SegmentationGather


class SegmentationWriter:
    """A class for every pixel, as one label map an image."""

    needs_legend = True

    def __init__(self, classes: Classes, threshold: float, write: bool) -> None:
        self.classes, self.threshold, self.write = classes, threshold, write
        self.draw = LabelPainter(classes)
        self.folder = Path()

    @property
    def categories(self) -> list[dict[str, Any]]:
        pairs = zip(self.classes.ids, self.classes.names, self.classes.colours, strict=True)
        return [{"id": i, "name": name, "color": list(colour)} for i, name, colour in pairs]

    def gather(self, grid: Grid) -> Gather:
        return SegmentationGather(grid, self.threshold)

    def open(self, folder: Path) -> None:
        self.folder = folder / "labels"

    def save(self, image_id: int, name: str, shape: tuple[int, int], result: np.ndarray) -> None:
        if self.write:
            numbers = result + self.classes.ids[0]
            kind = np.uint8 if self.classes.ids[-1] < 256 else np.uint16
            write_image(self.folder / f"{name}.png", numbers.astype(kind))

    def close(self, keep: bool) -> None:
        pass
