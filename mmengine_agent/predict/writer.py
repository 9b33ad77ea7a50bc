"""What a task does with predictions: put them together, save and draw them."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.tiles import Grid, Tile


class Gather(Protocol):
    """Puts the predictions of one image together."""

    def add(self, tile: Tile, sample: Any) -> None: ...

    def result(self) -> Any: ...


class Writer(Protocol):
    """Predictions of one task: what is saved of them, and how they are drawn."""

    classes: Classes
    needs_legend: bool  # for its pictures, which have no names in them

    @property
    def categories(self) -> list[dict[str, Any]]: ...

    def gather(self, grid: Grid) -> Gather: ...

    def open(self, folder: Path) -> None: ...

    def save(self, image_id: int, name: str, shape: tuple[int, int], result: Any) -> None: ...

    def close(self, keep: bool) -> None: ...

    def draw(self, image: np.ndarray, result: Any) -> None: ...
