"""Pictures of a segmentor's truth and prediction for the report."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from mmengine_agent.report.pictures import fit, jpeg, read, resized


def draw_segmentation(
    path: str,
    truth: np.ndarray,
    found: np.ndarray,
    classes: Sequence[str],
    palette: Sequence[tuple[int, ...]],
) -> dict[str, str]:
    """``truth`` and ``prediction`` of one image; none if the image cannot be read.

    Args:
        path: the image.
        truth: label map (height, width), of about the image's shape, maybe smaller; labels beyond
            the classes are left clear.
        found: the same.
        classes: names in the order of the labels.
        palette: their colours, red, green and blue of 0 to 255.
    """
    image = read(path)
    if image is None:
        return {}
    size = fit(truth.shape)
    maps = [
        cv2.resize(each.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
        for each in (truth, found)
    ]
    tensors = [torch.from_numpy(each.astype(np.int64))[None] for each in maps]
    sample = SegDataSample()
    sample.gt_sem_seg, sample.pred_sem_seg = (PixelData(data=each) for each in tensors)
    visualizer = SegLocalVisualizer(alpha=0.6)
    visualizer.dataset_meta = {"classes": list(classes), "palette": list(palette)}
    drawn = {}
    for name, wanted in (("truth", True), ("prediction", False)):
        options = {"draw_gt": wanted, "draw_pred": not wanted, "with_labels": False}
        visualizer.add_datasample(name, resized(image, size), sample, **options)
        drawn[name] = jpeg(visualizer.get_image())
    return drawn
