"""The record of a segmentor's test: counts of pixels, image by image.

K is the number of classes.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmseg.evaluation import IoUMetric
from torch import Tensor
from tqdm import tqdm

from mmengine_agent.draw import Array, Colour, class_colours, paint_labels
from mmengine_agent.report.record import SIDE, Record, best_and_worst, draw_pair

_NO_CLASS = 65535  # in the maps kept for pictures


class Image(NamedTuple):
    """An image's share of the confusion matrix, sparse, and small label maps as PNG."""

    path: str
    cells: np.ndarray  # (n,), row * (K + 1) + column
    counts: np.ndarray  # (n,), pixels
    truth: bytes
    prediction: bytes


class SegmentationRecord(Record):
    """Counts pixels of each true and predicted class.

    The last row and column hold labels that are no class, which mmseg's IoU counts as well: against
    the predicted class.

    Args:
        metric: the config's own ``IoUMetric``; its ``ignore_index`` is used.
    """

    def __init__(self, metric: BaseMetric) -> None:
        super().__init__(metric)
        self.ignored = metric.ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch."""
        size = len(self.dataset_meta["classes"]) + 1
        for sample in data_samples:
            guess = sample["pred_sem_seg"]["data"].squeeze(0)
            truth = sample["gt_sem_seg"]["data"].squeeze(0).to(guess)
            counted = truth != self.ignored
            rows = truth[counted].long().clamp(max=size - 1)
            columns = guess[counted].long().clamp(max=size - 1)
            pixels = torch.bincount(rows * size + columns, minlength=size * size)
            cells = pixels.nonzero().squeeze(1)
            maps = _packed(truth, self.ignored), _packed(guess, -1)  # guesses ignore nothing
            found = (cells.cpu().numpy(), pixels[cells].cpu().numpy())
            self.results.append(Image(sample.get("img_path", ""), *found, *maps))

    def summary(self) -> dict[str, Any]:
        names = list(self.dataset_meta["classes"])
        total = sum(
            (dense(image, len(names)) for image in self.gathered),
            np.zeros((len(names) + 1,) * 2, dtype=np.int64),
        )
        other = total[-1].any() or total[:, -1].any()
        shown = total if other else total[:-1, :-1]
        labels = [*names, "no class"] if other else names
        return {
            "task": "segmentation",
            "classes": names,
            "settings": {},
            "table": table(total),
            "confusion": {"labels": labels, "counts": shown.tolist()},
            **self._pictures(names),
        }

    def _pictures(self, names: list[str]) -> dict[str, Any]:
        rows = []
        for image in self.gathered:
            counts = dense(image, len(names))
            true, iou = counts.sum(1)[:-1].sum(), scores(counts)["IoU"]
            if true:  # a whole image may be ignored
                accuracy = 100 * float(counts.diagonal()[:-1].sum() / true)
                seen = int(np.isfinite(iou).sum())  # classes that the image has or is given
                rows.append((image, float(np.nanmean(iou)), accuracy, seen))
        chosen = best_and_worst(rows, [row[1] for row in rows], [row[3] for row in rows])
        colours = class_colours(len(names), [self.dataset_meta.get("palette")])
        pictures: list[dict[str, Any]] = []
        shown: set[int] = set()
        for group, (image, iou, accuracy, _) in tqdm(chosen, desc="pictures", disable=None):
            maps = _unpacked(image.truth), _unpacked(image.prediction)
            shown |= {*np.unique(maps[0]).tolist(), *np.unique(maps[1]).tolist()}
            drawn = draw_pair(image.path, *maps, partial(paint_map, colours))
            caption = f"mIoU {iou:.1f} %, {accuracy:.1f} % of the pixels right"
            about = {"image": image.path, "group": group, "score": iou}
            pictures.append({**about, "told": caption, **drawn})
        codes = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours]
        legend = [(names[i], codes[i]) for i in sorted(shown) if i < len(names)]
        return {"pictures": pictures, "legend": legend}


def paint_map(
    colours: Sequence[Colour], picture: Array, labels: np.ndarray, scale: np.ndarray
) -> None:
    """Draw a label map of any size; labels beyond the classes are left clear."""
    fitting = cv2.resize(labels, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    paint_labels(picture, fitting, colours)


def dense(image: Image, classes: int) -> np.ndarray:
    """An image's pixels (K + 1, K + 1) of each true (row) and predicted class."""
    size = classes + 1
    counts = np.zeros(size * size, dtype=np.int64)
    counts[image.cells] = image.counts
    return counts.reshape(size, size)


def scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Share of the pixels, IoU, accuracy and precision (K,) in %, not a number where undefined."""
    right, true, guessed = counts.diagonal()[:-1], counts.sum(1)[:-1], counts.sum(0)[:-1]
    with np.errstate(invalid="ignore"):
        return {
            "% of pixels": 100 * true / true.sum(),
            "IoU": 100 * right / (true + guessed - right),
            "Acc": 100 * right / true,
            "precision": 100 * right / guessed,
        }


def table(counts: np.ndarray) -> dict[str, Any]:
    """The scores of each class, None where undefined."""
    found = scores(counts)
    rows = np.transpose([*found.values()]).round(6).tolist()
    rows = [[None if value != value else value for value in row] for row in rows]
    return {"columns": list(found), "rows": rows, "digits": 2}


def _packed(labels: Tensor, ignored: int) -> bytes:
    """A label map (height, width), thinned out to at most ``SIDE`` pixels, as 16-bit PNG."""
    step = -(-max(labels.shape) // SIDE)
    small = labels[::step, ::step].cpu().numpy().astype(np.int64)
    small[small == ignored] = _NO_CLASS
    return cv2.imencode(".png", small.astype(np.uint16))[1].tobytes()


def _unpacked(png: bytes) -> np.ndarray:
    labels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert labels is not None  # it is our own
    return labels


def record_of(metric: BaseMetric) -> Record | None:
    """The record that goes with an ``IoUMetric``; None with any other metric."""
    return SegmentationRecord(metric) if isinstance(metric, IoUMetric) else None
