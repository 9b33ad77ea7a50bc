"""Pictures of a detector's truth and prediction for the report."""

from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from mmengine.visualization import Visualizer
from pycocotools import mask as run_lengths

from mmengine_agent.report.pictures import fit, jpeg, read, resized


def draw_detection(
    path: str,
    truth: dict[str, Any],
    found: dict[str, Any],
    classes: Sequence[str],
    palette: Sequence[tuple[int, ...]],
    score: float,
) -> dict[str, str]:
    """``truth`` and ``prediction`` of one image; none if the image cannot be read.

    Args:
        path: the image.
        truth: ``bboxes`` (n, 4) as corners in pixels, ``labels`` (n,), and maybe ``masks``, n
            run-length codes.
        found: the same, and ``scores`` (n,).
        classes: names in the order of the labels.
        palette: their colours, red, green and blue of 0 to 255.
        score: what is less sure is not drawn.
    """
    image = read(path)
    if image is None:
        return {}
    small = resized(image, fit(image.shape[:2]))
    scale = small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]
    rows = np.flatnonzero(np.asarray(found["scores"]) >= score)
    sure: dict[str, Any] = {
        key: [found[key][i] for i in rows] for key in ("bboxes", "labels", "masks") if key in found
    }
    return {
        name: jpeg(_with_instances(small, each, scale, classes, palette))
        for name, each in (("truth", truth), ("prediction", sure))
    }


def _with_instances(
    image: np.ndarray,
    found: dict[str, Any],
    scale: tuple[float, float],
    classes: Sequence[str],
    palette: Sequence[tuple[int, ...]],
) -> np.ndarray:
    """An image with masks, boxes and names; ``scale`` leads from the boxes' pixels to its own."""
    colors = [palette[label] for label in found["labels"]]
    boxes = np.array(found["bboxes"], dtype=np.float32).reshape(-1, 4) * np.array(scale * 2)
    boxes = np.clip(boxes, 0, np.array(image.shape[1::-1] * 2) - 1)
    if not colors:
        return image
    visualizer = Visualizer(image=image)
    if "masks" in found:
        masks = [
            cv2.resize(run_lengths.decode(code), image.shape[1::-1]) for code in found["masks"]
        ]
        visualizer.draw_binary_masks(np.array(masks, dtype=bool), colors=colors, alphas=0.45)
    visualizer.draw_bboxes(boxes, edge_colors=colors, line_widths=2, alpha=1)
    with matplotlib.rc_context({"text.parse_math": False}):  # names with $ are names
        visualizer.draw_texts(
            [classes[label] for label in found["labels"]],
            boxes[:, :2],
            font_sizes=11,
            colors="w",
            bboxes=[
                {"facecolor": [c / 255 for c in each], "pad": 1, "edgecolor": "none"}
                for each in colors
            ],
        )
        return visualizer.get_image()
