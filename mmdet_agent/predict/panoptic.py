"""Things and stuff of an image: COCO's panoptic format, a PNG an image and one JSON."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET

from mmengine_agent.draw import paint_mask, write_image, write_text
from mmengine_agent.files import write_file
from mmengine_agent.predict.sliding_window import Tile
from mmengine_agent.predict.writer import Writer


class PanopticWriter(Writer):
    """A segment for every pixel; a result is a map (H, W) of label + INSTANCE_OFFSET * number."""

    needs_legend = True
    joins_tiles = False  # segments would have to be joined

    def merge(self, shape: tuple[int, int], parts: Iterable[tuple[Tile, Any]]) -> np.ndarray:
        """The map of the one tile that an image has."""
        ((_, sample),) = parts
        return np.asarray(sample.pred_panoptic_seg.sem_seg.cpu())[0]

    def save(
        self, folder: Path, name: str, image_id: int, shape: tuple[int, int], result: Any
    ) -> None:
        """Write panoptic/NAME.png, whose pixels are R + 256 G + 65536 B = the segment's id."""
        picture, segments = np.zeros(shape, np.uint32), []
        for number, (label, area) in enumerate(self._segments(result), 1):
            picture[area] = number
            category = self.classes.ids[label]
            segments.append({"id": number, "category_id": category, "area": int(area.sum())})
        bgr = np.stack([picture >> 16, picture >> 8, picture], -1) & 255
        write_image(folder / f"panoptic/{name}.png", bgr.astype(np.uint8))
        entry = {"image_id": image_id, "file_name": f"{name}.png", "segments_info": segments}
        self.saved.append(entry)

    def finish(self, folder: Path) -> None:
        """Write panoptic.json."""
        lines = ",\n".join(json.dumps(each) for each in self.saved)
        write_file(folder / "panoptic.json", f'{{"annotations": [\n{lines}\n]}}\n')

    def draw(self, image: np.ndarray, result: np.ndarray) -> None:
        """Lay the classes' colours over the segments, and their names on each."""
        for label, area in self._segments(result):
            paint_mask(image, area, self.classes.colours[label])
        for label, area in self._segments(result):
            rows, columns = area.nonzero()
            middle = len(rows) // 2  # a pixel of the segment, in its middle row
            place = (int(columns[middle]), int(rows[middle]))
            write_text(image, self.classes.names[label], *place, self.classes.colours[label])

    def _segments(self, result: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """(label, mask) of each segment; pixels of no class are left out."""
        found = ((int(each) % INSTANCE_OFFSET, each) for each in np.unique(result))
        count = len(self.classes.names)
        return [(label, result == each) for label, each in found if label < count]
