"""What a task does with predictions: put the tiles of an image together, save and draw them."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.sliding_window import Tile


class Writer(ABC):
    """Predictions of one task; a result is what ``merge`` makes of an image."""

    needs_legend: ClassVar[bool]  # for its pictures, which have no names in them
    joins_tiles: ClassVar[bool] = True  # whether ``merge`` takes more than one

    def __init__(self, classes: Classes, threshold: float) -> None:
        """``threshold``: least score of an object."""
        self.classes, self.threshold = classes, threshold
        self.saved: list[Any] = []  # what ``finish`` writes

    @abstractmethod
    def merge(self, shape: tuple[int, int], parts: Iterable[tuple[Tile, Any]]) -> Any:
        """The result of an image (H, W) from its tiles and the model's data samples of them.

        Samples come one by one and are large: none is to be kept.
        """

    @abstractmethod
    def save(
        self, folder: Path, name: str, image_id: int, shape: tuple[int, int], result: Any
    ) -> None:
        """Save the result of an image (H, W); ``name`` is its own in the folder."""

    def finish(self, folder: Path) -> None:  # noqa: B027  (there may be nothing)
        """Save what is not saved image by image."""

    @abstractmethod
    def draw(self, image: np.ndarray, result: Any) -> None:
        """Draw a result into its image (H, W, 3) uint8 BGR, in place."""
