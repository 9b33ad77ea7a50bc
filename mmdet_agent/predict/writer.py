"""Boxes and masks of a detector, as one file of COCO results."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_agent.predict.instances import Instance, coco_results, decode, instances_of
from mmdet_agent.predict.merge import merge
from mmengine_agent.draw import paint_box, paint_mask
from mmengine_agent.files import whole_file
from mmengine_agent.predict.sliding_window import Tile
from mmengine_agent.predict.writer import Save, Writer


class DetectionWriter(Writer):
    """Boxes and masks, as one file of COCO results."""

    needs_legend = False

    def categories(self) -> list[dict[str, Any]]:
        pairs = zip(self.classes.ids, self.classes.names, strict=True)
        return [{"id": number, "name": name} for number, name in pairs]

    def merge(self, shape: tuple[int, int], parts: Iterable[tuple[Tile, Any]]) -> list[Instance]:
        found: list[Instance] = []
        for tile, sample in parts:
            found += instances_of(sample, tile, self.threshold)
            del sample  # before the next one is computed
        return merge(found)

    @contextmanager
    def saving(self, folder: Path) -> Iterator[Save]:
        with whole_file(folder / "predictions.json") as part, part.open("w") as file:
            begin = "[\n"

            def save(image_id: int, name: str, shape: tuple[int, int], found: Any) -> None:
                nonlocal begin
                for result in coco_results(found, shape, image_id, self.classes.ids):
                    file.write(begin + json.dumps(result))
                    begin = ",\n"

            yield save
            file.write("[]\n" if begin == "[\n" else "\n]\n")

    def draw(self, image: np.ndarray, result: list[Instance]) -> None:
        """Draw masks, boxes, names and scores in per cent, the surest last."""
        for each in sorted(result, key=lambda each: each.score):
            colour = self.classes.colours[each.label]
            if each.mask is not None:
                rows, columns, mask = decode(each.mask, each.tile)
                paint_mask(image[rows, columns], mask, colour)
            name = f"{self.classes.names[each.label]}: {100 * each.score:.1f}"
            paint_box(image, each.box, colour, name)
