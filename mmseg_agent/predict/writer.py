"""A class for every pixel, as one label map an image."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmengine_agent.draw import paint_labels, write_image
from mmengine_agent.errors import UserError
from mmengine_agent.predict.model import dataset_of
from mmengine_agent.predict.sliding_window import Tile
from mmengine_agent.predict.writer import Writer


class SegmentationWriter(Writer):
    """A class for every pixel, as one label map an image."""

    needs_legend = True

    def merge(self, shape: tuple[int, int], parts: Iterable[tuple[Tile, Any]]) -> np.ndarray:
        """Labels (H, W), from 0 in the order of the model's classes.

        Where tiles overlap, a pixel has its label from the one whose middle is nearest, which sees
        most around it.
        """
        labels = np.zeros(shape, np.uint16)
        for (rows, columns), sample in parts:
            if "pred_sem_seg" not in sample:
                raise UserError("the model predicts no labels of pixels: it is no segmentor")
            found = sample.pred_sem_seg.data[0]  # (h, w)
            (y1, y2), (x1, x2), (top, left) = rows.share, columns.share, (rows.start, columns.start)
            labels[y1:y2, x1:x2] = found[y1 - top : y2 - top, x1 - left : x2 - left].cpu().numpy()
            del sample, found  # before the next one is computed
        return labels

    def save(
        self, folder: Path, name: str, image_id: int, shape: tuple[int, int], result: Any
    ) -> None:
        kind = np.uint8 if self.classes.ids[-1] < 256 else np.uint16
        numbers = (result + self.classes.ids[0]).astype(kind)
        write_image(folder / f"labels/{name}.png", numbers)

    def draw(self, image: np.ndarray, result: np.ndarray) -> None:
        paint_labels(image, result, self.classes.colours)


def map_numbers(cfg: Config, names: tuple[str, ...]) -> tuple[int, ...]:
    """The labels' numbers in the maps that a config trains on: from 1 with reduce_zero_label."""
    dataset = dataset_of(cfg)
    first = any(each.get("reduce_zero_label") for each in (dataset, *dataset.pipeline))
    return tuple(range(int(first), int(first) + len(names)))
