"""Predictions drawn into images, in place, with mmdet's and mmseg's own visualizers.

Both draw an object or a block at a time: a picture of the whole image's size, with a mask of that
size for each object, would take far more memory than the image.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData
from pycocotools import mask as coco_mask

from mmengine_agent.predict.classes import Classes
from mmdet_agent.predict.merge import Found
from mmengine_agent.predict.tiles import Tile

_LABEL = (40, 320)  # room (height, width) for an object's text, in pixels
_LINE = 6  # room for the line of a box, in pixels
_BLOCK = 1024  # side of what is drawn at once of a label map, in pixels
_SMALL = 256 * 256  # pixels


class InstancePainter:
    """Draws boxes, masks, names and scores."""

    def __init__(self, classes: Classes) -> None:
        from mmdet.visualization import DetLocalVisualizer

        self.visualizer = DetLocalVisualizer(name="predict")
        self.visualizer.dataset_meta = {"classes": classes.names, "palette": [*classes.colours]}

    def __call__(self, image: np.ndarray, found: list[Found]) -> None:
        """Draw what was found in the tiles of an image (H, W, 3) uint8 BGR into it."""
        from mmdet.structures import DetDataSample

        for tile, instances in found:
            for some in _groups(tile, instances):
                area = _area(some, tile)
                part = image[area.y : area.y + area.height, area.x : area.x + area.width]
                sample = DetDataSample(pred_instances=_drawable(some, tile, area, part.shape))
                _paint(self.visualizer, part, sample, draw_gt=False, pred_score_thr=-1)


class LabelPainter:
    """Colours every pixel by its class."""

    def __init__(self, classes: Classes) -> None:
        from mmseg.visualization import SegLocalVisualizer

        self.visualizer = SegLocalVisualizer(name="predict", alpha=0.5)
        self.visualizer.dataset_meta = {
            "classes": classes.names,
            "palette": [list(colour) for colour in classes.colours],
        }

    def __call__(self, image: np.ndarray, labels: np.ndarray) -> None:
        """Draw labels (H, W) into an image (H, W, 3) uint8 BGR."""
        from mmseg.structures import SegDataSample

        height, width = labels.shape
        for y in range(0, height, _BLOCK):
            for x in range(0, width, _BLOCK):
                area = slice(y, y + _BLOCK), slice(x, x + _BLOCK)
                data = torch.from_numpy(labels[area].astype(np.int64))[None]
                sample = SegDataSample(pred_sem_seg=PixelData(data=data))
                # names in the picture take seconds; the legend has them
                _paint(self.visualizer, image[area], sample, draw_gt=False, with_labels=False)


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


def _paint(visualizer: Any, part: np.ndarray, sample: Any, **options: Any) -> None:
    """Replace a part (H, W, 3) of an image by its picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a box may end at the picture's very edge
        visualizer.add_datasample("", part[:, :, ::-1], sample, **options)
        part[:] = visualizer.get_image()[:, :, ::-1]


def write_legend(path: Path, classes: Classes) -> None:
    """Write a picture of the colours and names."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in classes.colours]
    patches = [Patch(color=c, label=n) for c, n in zip(colours, classes.names, strict=True)]
    figure = Figure()
    figure.legend(handles=patches, loc="center", ncols=1 + len(patches) // 30)
    figure.savefig(path, bbox_inches="tight", dpi=120)
