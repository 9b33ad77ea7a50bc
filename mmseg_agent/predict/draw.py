"""Label maps drawn into images, in place, with mmseg's own visualizer, block by block."""

import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.draw import paint

_BLOCK = 1024  # side of what is drawn at once of a label map, in pixels


class LabelPainter:
    """Colours every pixel by its class."""

    def __init__(self, classes: Classes) -> None:
        self.visualizer = SegLocalVisualizer(name="predict", alpha=0.5)
        self.visualizer.dataset_meta = {
            "classes": classes.names,
            "palette": [list(colour) for colour in classes.colours],
        }

    def __call__(self, image: np.ndarray, labels: np.ndarray) -> None:
        """Draw labels (H, W) into an image (H, W, 3) uint8 BGR."""
        height, width = labels.shape
        for y in range(0, height, _BLOCK):
            for x in range(0, width, _BLOCK):
                area = slice(y, y + _BLOCK), slice(x, x + _BLOCK)
                data = torch.from_numpy(labels[area].astype(np.int64))[None]
                sample = SegDataSample(pred_sem_seg=PixelData(data=data))
                # names in the picture take seconds; the legend has them
                paint(self.visualizer, image[area], sample, draw_gt=False, with_labels=False)
