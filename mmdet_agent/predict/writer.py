"""Boxes and masks of a detector, as one file of COCO results."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmengine.config import Config

from mmdet_agent.data.problems import reads_coco
from mmdet_agent.data.read import annotation_path, forget_files, read_categories
from mmdet_agent.predict.instances import Instance, coco_result, instances_of
from mmdet_agent.predict.merge import merge
from mmengine_agent.draw import paint_box, paint_mask
from mmengine_agent.files import write_file
from mmengine_agent.predict.model import dataset_of
from mmengine_agent.predict.sliding_window import Tile
from mmengine_agent.predict.writer import Writer

# COCO numbers its 80 classes from 1 to 90 and leaves these out (instances_val2017.json)
_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
_COCO_THINGS = tuple(number for number in range(1, 91) if number not in _COCO_GAPS)
# and 53 of stuff (panoptic_val2017.json)
_COCO_STUFF = (
    *(92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145),
    *(147, 148, 149, 151, 154, 155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181),
    *range(184, 201),
)


class DetectionWriter(Writer):
    """Boxes and masks, as one file of COCO results."""

    needs_legend = False

    def merge(self, shape: tuple[int, int], parts: Iterable[tuple[Tile, Any]]) -> list[Instance]:
        """The objects of an image, the surest first."""
        found: list[Instance] = []
        for tile, sample in parts:
            found += instances_of(sample, tile, self.threshold)
            del sample  # before the next one is computed
        return sorted(merge(found, shape), key=lambda each: -each.score)

    def save(
        self, folder: Path, name: str, image_id: int, shape: tuple[int, int], result: Any
    ) -> None:
        self.saved += [coco_result(each, shape, image_id, self.classes.ids) for each in result]

    def finish(self, folder: Path) -> None:
        lines = ",\n".join(json.dumps(each) for each in self.saved)
        write_file(folder / "predictions.json", f"[\n{lines}\n]\n")

    def draw(self, image: np.ndarray, result: list[Instance]) -> None:
        """Draw masks, boxes, names and scores in per cent, the surest last."""
        for each in reversed(result):
            colour = self.classes.colours[each.label]
            if each.mask is not None:
                area, mask = each.mask.decode()
                paint_mask(image[area], mask, colour)
            name = f"{self.classes.names[each.label]}: {100 * each.score:.1f}"
            paint_box(image, each.box, colour, name)


def category_ids(cfg: Config, names: tuple[str, ...]) -> tuple[int, ...]:
    """Those of the annotation file that the config names; else COCO's own; else label + 1."""
    dataset = dataset_of(cfg)
    path = annotation_path(dataset)
    if path.is_file() and (reads_coco(dataset) or "Panoptic" in str(dataset.type)):
        listed = read_categories(path)
        forget_files()
        if set(names) <= listed.keys():
            return tuple(listed[name] for name in names)
    if names == CocoDataset.METAINFO["classes"]:
        return _COCO_THINGS
    if names == CocoPanopticDataset.METAINFO["classes"]:
        return _COCO_THINGS + _COCO_STUFF
    return tuple(range(1, len(names) + 1))
