"""Objects drawn into images, in place, with mmdet's own visualizer.

One object at a time: a mask of the whole image's size for each would take far more memory than the
image.
"""

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from mmdet_agent.predict.merge import Found
from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.draw import paint
from mmengine_agent.predict.tiles import Tile

_LABEL = (40, 320)  # room (height, width) for an object's text, in pixels
_LINE = 6  # room for the line of a box, in pixels
_SMALL = 256 * 256  # pixels


class InstancePainter:
    """Draws boxes, masks, names and scores."""

    def __init__(self, classes: Classes) -> None:
        self.visualizer = DetLocalVisualizer(name="predict")
        self.visualizer.dataset_meta = {"classes": classes.names, "palette": [*classes.colours]}

    def __call__(self, image: np.ndarray, found: list[Found]) -> None:
        """Draw what was found in the tiles of an image (H, W, 3) uint8 BGR into it."""
        for tile, instances in found:
            for some in _groups(tile, instances):
                area = _area(some, tile)
                part = image[area.y : area.y + area.height, area.x : area.x + area.width]
                sample = DetDataSample(pred_instances=_drawable(some, tile, area, part.shape))
                paint(self.visualizer, part, sample, draw_gt=False, pred_score_thr=-1)


def _groups(tile: Tile, instances: InstanceData) -> list[InstanceData]:
    """What is drawn together: all in a small tile; in a large one each alone, the surest last.

    mmdet goes over all its picture for every mask.
    """
    if tile.height * tile.width <= _SMALL and len(instances):
        return [instances]
    order = instances.scores.argsort().tolist()
    return [instances[i : i + 1] for i in order]


def _area(instances: InstanceData, tile: Tile) -> Tile:
    """The rectangle of the image to draw in, with room for lines and text (it may end outside)."""
    boxes = instances.bboxes
    if "masks" in instances:
        x, y, width, height = torch.from_numpy(coco_mask.toBbox(instances.masks)).unbind(1)
        boxes = torch.cat([boxes, torch.stack([x, y, x + width, y + height], 1)])
    left, top = (boxes[:, :2].amin(0).floor().int() - _LINE).clamp(min=0).tolist()
    right, bottom = boxes[:, 2:].amax(0).ceil().int().tolist()
    height, width = bottom - top + _LABEL[0], right - left + _LABEL[1]
    return Tile(tile.y + top, tile.x + left, height, width, 0, 0)


def _drawable(
    instances: InstanceData, tile: Tile, area: Tile, shape: tuple[int, ...]
) -> InstanceData:
    """The same in pixels of a picture of ``area``, with masks (n, H, W) of the picture's shape."""
    top, left = area.y - tile.y, area.x - tile.x
    out = InstanceData(scores=instances.scores, labels=instances.labels)
    out.bboxes = instances.bboxes - torch.tensor([left, top, left, top])
    if "masks" in instances:
        masks = torch.zeros(len(instances), *shape[:2], dtype=torch.bool)
        for mask, code in zip(masks, instances.masks, strict=True):
            small = torch.from_numpy(coco_mask.decode(code)).bool()
            small = small[top : top + shape[0], left : left + shape[1]]
            mask[: small.shape[0], : small.shape[1]] = small
        out.masks = masks
    return out
