"""What testing leaves for the report, gathered along with the config's own metric: evaluation.json.

A record is one more metric of mmengine's evaluator that reports no number, so what is printed and
written to metrics.json does not change. All processes' results are collected as mmengine does for
its metrics: exact, without the images that a sampler repeats to give each process as many.
"""

import base64
import json
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner

from mmengine_agent.draw import (
    Array,
    Colour,
    class_colours,
    encode,
    fit,
    paint_labels,
    read_image,
)
from mmengine_agent.files import write_file
from mmengine_agent.task import task_of

FILE = "evaluation.json"
VERSION = 1  # of the file's layout
SHOWN = 6  # best, and as many worst predictions
SIDE = 400  # pixels of a picture's longer side
NO_LABEL = 65535  # in the label maps kept for pictures: pixels that are left clear


@dataclass(frozen=True)
class Candidate:
    """An image that may be shown among the best or the worst."""

    path: str
    content: Any  # what ``Record.paint`` takes
    score: float
    size: int  # objects or classes; of equal scores those with most are shown
    caption: str


class Record(BaseMetric):
    """Gathers the results of a test; the main process has them in ``gathered`` afterwards.

    Args:
        metric: the config's own, which has processed each batch before.
    """

    default_prefix = "record"  # without one mmengine warns

    def __init__(self, metric: BaseMetric) -> None:
        super().__init__(collect_device=metric.collect_device)
        self.metric, self.gathered = metric, list[Any]()
        self.dataset_meta = metric.dataset_meta

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """Keep the results of all processes, one an image; gives no metric."""
        self.gathered = results
        return {}

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """What the report shows, ready for JSON; on the main process, after ``evaluate``."""

    @abstractmethod
    def paint(self, picture: Array, scale: np.ndarray, content: Any, side: str) -> None:
        """Draw the 'truth' or the 'prediction' of an image.

        Args:
            picture: the image at a small size, drawn over.
            scale: factors (2,) of x and y from the image to the picture.
            content: of the ``Candidate``.
            side: 'truth' or 'prediction'.
        """

    def pictures(self, candidates: Iterable[Candidate]) -> list[dict[str, Any]]:
        """The best and the worst, with both pictures as base64 unless the image is unreadable."""
        found = []
        for group, each in best_and_worst(candidates):
            entry = {"image": each.path, "group": group, "score": each.score, "told": each.caption}
            image = read_image(Path(each.path))
            if image is not None:
                for side in ("truth", "prediction"):
                    entry[side] = self._draw(image, each.content, side)
            found.append(entry)
        return found

    def _draw(self, image: Array, content: Any, side: str) -> str:
        picture = fit(image, SIDE, SIDE)
        self.paint(picture, np.array(picture.shape[1::-1]) / image.shape[1::-1], content, side)
        return base64.b64encode(encode(picture, "x.jpg", cv2.IMWRITE_JPEG_QUALITY, 80)).decode()


class LabelMapRecord(Record):
    """A record whose pictures show label maps, one for each of ``content``'s sides."""

    def paint(self, picture: Array, scale: np.ndarray, content: Any, side: str) -> None:
        """Lay the classes' colours over a picture; labels beyond the classes are left clear."""
        labels = cv2.imdecode(np.frombuffer(content[side], np.uint8), cv2.IMREAD_UNCHANGED)
        assert labels is not None  # it is our own
        fitting = cv2.resize(labels, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        paint_labels(picture, fitting, self._colours())

    def legend(self) -> list[tuple[str, str]]:
        """Names of the classes, with their colours as HTML has them."""
        colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in self._colours()]
        return [*zip(self.dataset_meta["classes"], colours, strict=True)]

    def _colours(self) -> tuple[Colour, ...]:
        return class_colours(len(self.dataset_meta["classes"]), [self.dataset_meta.get("palette")])


def pack_labels(labels: np.ndarray) -> bytes:
    """A label map (H, W) of numbers up to ``NO_LABEL`` as 16-bit PNG."""
    return cv2.imencode(".png", labels.astype(np.uint16))[1].tobytes()


def best_and_worst(candidates: Iterable[Candidate]) -> list[tuple[str, Candidate]]:
    """Up to ``SHOWN`` best and worst, none twice; of equals those with the greatest size."""
    order = sorted(candidates, key=lambda each: (each.score, -each.size))
    worst = order[: min(SHOWN, len(order) // 2)]
    best = sorted(order[len(worst) :], key=lambda each: (-each.score, -each.size))[:SHOWN]
    return [*(("best", each) for each in best), *(("worst", each) for each in worst)]


def add_record(runner: Runner, cfg: Config) -> Record | None:
    """Add a record to what ``runner.test()`` evaluates, after the metric that it goes with.

    Returns:
        The record, or None if no metric of the config has what it needs: ``CocoMetric`` of boxes,
        ``CocoPanopticMetric`` or ``IoUMetric``, not only formatting results.
    """
    metrics = runner.test_loop.evaluator.metrics
    for place, metric in enumerate(metrics, 1):
        kind = task_of(cfg).record(metric)
        if kind is not None and not metric.format_only:
            record: Record = kind(metric)
            metrics.insert(place, record)
            return record
    return None


def write_record(record: Record | None, folder: Path, **facts: Any) -> None:
    """Write ``evaluation.json``: ``facts`` and the record; without one, remove that of before."""
    if record is None:
        (folder / FILE).unlink(missing_ok=True)  # it would not go with the new metrics
        return
    content = {"version": VERSION, **facts, "images": len(record.gathered), **record.summary()}
    write_file(folder / FILE, json.dumps(content) + "\n")
    print(f"for tools/report.py: {folder / FILE}")
