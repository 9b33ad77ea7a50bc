"""What a detector says of the tiles of an image, gathered and as COCO results."""

from typing import Any

import numpy as np

from mmdet_agent.predict.masks import encode, place
from mmdet_agent.predict.merge import Found, merge
from mmengine_agent.errors import UserError
from mmengine_agent.predict.tiles import Grid, Tile


class DetectionGather:
    """Takes what a detector says of each tile of one image."""

    def __init__(self, grid: Grid, threshold: float) -> None:
        self.grid, self.threshold = grid, threshold
        self.found: list[Found] = []

    def add(self, tile: Tile, sample: Any) -> None:
        if "pred_instances" not in sample:
            raise UserError("the model predicts no instances: it is no detector")
        instances = sample.pred_instances
        instances = instances[instances.scores >= self.threshold].cpu()
        if "masks" in instances:
            instances.masks = [encode(mask) for mask in np.asarray(instances.masks)]
        self.found.append(Found(tile, instances))

    def result(self) -> list[Found]:
        """The objects of the image."""
        return merge(self.found, self.grid) if len(self.found) > 1 else self.found


def records(
    found: list[Found], shape: tuple[int, int], image_id: int, category_ids: tuple[int, ...]
) -> list[dict[str, Any]]:
    """COCO results of an image of ``shape`` (H, W), the surest first."""
    out = []
    for tile, instances in found:
        for i in range(len(instances)):
            x1, y1, x2, y2 = instances.bboxes[i].tolist()
            box = [x1 + tile.x, y1 + tile.y, x2 - x1, y2 - y1]
            record = {
                "image_id": image_id,
                "category_id": category_ids[int(instances.labels[i])],
                "bbox": [round(number, 2) for number in box],
                "score": round(float(instances.scores[i]), 5),
            }
            if "masks" in instances:
                code = place(instances.masks[i], tile, shape)
                record["segmentation"] = {**code, "counts": code["counts"].decode()}
            out.append(record)
    return sorted(out, key=lambda record: -record["score"])
