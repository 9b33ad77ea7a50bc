"""Small pictures of a truth and of a prediction, as base64 JPEG, drawn by mmengine and mmseg."""

import base64
from collections.abc import Sequence
from typing import Any

import cv2
import matplotlib
import mmcv
import numpy as np
import torch
from mmengine.structures import PixelData
from mmengine.visualization import Visualizer
from pycocotools import mask as run_lengths

SIDE = 400  # pixels of the longer side
_QUALITY = 80  # of JPEG, per cent


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
    image = _read(path)
    if image is None:
        return {}
    small = _resized(image, _fit(image.shape[:2]))
    scale = small.shape[1] / image.shape[1], small.shape[0] / image.shape[0]
    rows = np.flatnonzero(np.asarray(found["scores"]) >= score)
    sure: dict[str, Any] = {
        key: [found[key][i] for i in rows] for key in ("bboxes", "labels", "masks") if key in found
    }
    return {
        name: _jpeg(_with_instances(small, each, scale, classes, palette))
        for name, each in (("truth", truth), ("prediction", sure))
    }


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
    from mmseg.structures import SegDataSample
    from mmseg.visualization import SegLocalVisualizer

    image = _read(path)
    if image is None:
        return {}
    size = _fit(truth.shape)
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
        visualizer.add_datasample(name, _resized(image, size), sample, **options)
        drawn[name] = _jpeg(visualizer.get_image())
    return drawn


def palette_of(meta: dict[str, Any]) -> list[tuple[int, ...]]:
    """Colours of a data set's classes, red, green and blue of 0 to 255.

    For up to 20 classes they can be told apart; where a data set has none, mmseg draws lots and
    mmdet keeps those of COCO.
    """
    count = len(meta["classes"])
    if count > 20 and len(meta.get("palette") or ()) >= count:
        return [tuple(map(int, color)) for color in meta["palette"][:count]]
    colors = matplotlib.colormaps["tab10" if count <= 10 else "tab20"](np.arange(count) % 20)
    return [tuple(color) for color in np.round(255 * colors[:, :3]).astype(int).tolist()]


def hexadecimal(color: Sequence[int]) -> str:
    """A colour as HTML writes it."""
    return "#{:02x}{:02x}{:02x}".format(*color)


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


def _read(path: str) -> np.ndarray | None:
    """An image (height, width, 3), red first; None if it cannot be read as a local file."""
    try:
        return mmcv.imread(path, channel_order="rgb")
    except (OSError, ValueError, cv2.error):
        return None


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _fit(shape: Sequence[int]) -> tuple[int, int]:
    """Width and height in pixels of a picture whose longer side is ``SIDE``."""
    factor = SIDE / max(shape)
    height, width = (max(1, round(side * factor)) for side in shape)
    return width, height


def _jpeg(image: np.ndarray) -> str:
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
    return base64.b64encode(data.tobytes()).decode()
