"""A class for every pixel, as one label map an image."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmengine_agent.draw import paint_labels, write_image
from mmengine_agent.predict.model import dataset_of
from mmengine_agent.predict.sliding_window import Grid, Tile
from mmengine_agent.predict.writer import Save, Writer
from mmseg_agent.predict.blend import Blend


class SegmentationWriter(Writer):
    """A class for every pixel, as one label map an image."""

    needs_legend = True

    def categories(self) -> list[dict[str, Any]]:
        columns = zip(self.classes.ids, self.classes.names, self.classes.colours, strict=True)
        return [{"id": i, "name": name, "color": list(colour)} for i, name, colour in columns]

    def merge(self, grid: Grid, parts: Iterable[tuple[Tile, Any]]) -> np.ndarray:
        """Labels (H, W), from 0 in the order of the model's classes."""
        blend = Blend(grid, self.threshold)
        for tile, sample in parts:
            blend.add(tile, sample)
            del sample  # before the next one is computed
        return blend.labels

    @contextmanager
    def saving(self, folder: Path) -> Iterator[Save]:
        def save(image_id: int, name: str, shape: tuple[int, int], labels: Any) -> None:
            kind = np.uint8 if self.classes.ids[-1] < 256 else np.uint16
            numbers = (labels + self.classes.ids[0]).astype(kind)
            write_image(folder / f"labels/{name}.png", numbers)

        yield save

    def draw(self, image: np.ndarray, result: np.ndarray) -> None:
        paint_labels(image, result, self.classes.colours)


def map_numbers(cfg: Config, names: tuple[str, ...]) -> tuple[int, ...]:
    """The labels' numbers in the maps that a config trains on: from 1 with reduce_zero_label."""
    dataset = dataset_of(cfg)
    first = any(each.get("reduce_zero_label") for each in (dataset, *dataset.pipeline))
    return tuple(range(int(first), int(first) + len(names)))
