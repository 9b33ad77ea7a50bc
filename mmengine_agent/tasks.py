"""What detection and segmentation do differently: gather, save and draw their predictions."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmengine_agent.predict.classes import Classes
from mmdet_agent.predict.gather import DetectionGather, records
from mmengine_agent.predict.draw import InstancePainter, LabelPainter
from mmengine_agent.predict.files import JsonList, write_image
from mmdet_agent.predict.merge import Found
from mmseg_agent.predict.gather import SegmentationGather
from mmengine_agent.predict.tiles import Grid, Tile


class Gather(Protocol):
    """Puts the predictions of one image together."""

    def add(self, tile: Tile, sample: Any) -> None: ...

    def result(self) -> Any: ...


class Task(Protocol):
    """One of the two tasks."""

    classes: Classes
    needs_legend: bool  # for its pictures, which have no names in them

    @property
    def categories(self) -> list[dict[str, Any]]: ...

    def gather(self, grid: Grid) -> Gather: ...

    def open(self, folder: Path) -> None: ...

    def save(self, image_id: int, name: str, shape: tuple[int, int], result: Any) -> None: ...

    def close(self, keep: bool) -> None: ...

    def draw(self, image: np.ndarray, result: Any) -> None: ...


class Detection:
    """Boxes and masks, as one file of COCO results."""

    needs_legend = False

    def __init__(self, classes: Classes, threshold: float, write: bool) -> None:
        self.classes, self.threshold, self.write = classes, threshold, write
        self.draw = InstancePainter(classes)
        self.results: JsonList | None = None

    @property
    def categories(self) -> list[dict[str, Any]]:
        pairs = zip(self.classes.ids, self.classes.names, strict=True)
        return [{"id": number, "name": name} for number, name in pairs]

    def gather(self, grid: Grid) -> Gather:
        return DetectionGather(grid, self.threshold)

    def open(self, folder: Path) -> None:
        if self.write:
            self.results = JsonList(folder / "predictions.json")

    def save(self, image_id: int, name: str, shape: tuple[int, int], result: list[Found]) -> None:
        if self.results is not None:
            self.results.extend(records(result, shape, image_id, self.classes.ids))

    def close(self, keep: bool) -> None:
        if self.results is not None:
            self.results.close(keep)


class Segmentation:
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
