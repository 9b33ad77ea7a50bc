"""Boxes and masks of a detector, as one file of COCO results."""

from pathlib import Path
from typing import Any

from mmdet_agent.predict.draw import InstancePainter
from mmdet_agent.predict.gather import DetectionGather, records
from mmdet_agent.predict.merge import Found
from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.files import JsonList
from mmengine_agent.predict.tiles import Grid
from mmengine_agent.predict.writer import Gather


class DetectionWriter:
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
