"""What testing leaves for the report, gathered along with the config's own metric: evaluation.json.

A record is one more metric of mmengine's evaluator that reports no number, so what is printed and
written to metrics.json does not change. All processes' results are collected as mmengine does for
its metrics: exact, without the images that a sampler repeats to give each process as many.
"""

import base64
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dist import collect_results
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner

from mmengine_agent.draw import Array, encode, fit, read_image
from mmengine_agent.files import write_whole
from mmengine_agent.task import task_of

FILE = "evaluation.json"
VERSION = 1  # of the file's layout
BACKGROUND = "background"  # of a confusion matrix: the last label, where no object is
SHOWN = 6  # best, and as many worst predictions
SIDE = 400  # pixels of a picture's longer side

Item = TypeVar("Item")


class Record(BaseMetric):
    """Gathers the results of a test; the main process has them in ``gathered`` afterwards.

    Args:
        metric: the config's own, of which it takes over how results are collected.
    """

    default_prefix = "record"  # without one mmengine warns

    def __init__(self, metric: BaseMetric) -> None:
        super().__init__(collect_device=metric.collect_device)
        self.gathered: list[Any] = []

    def evaluate(self, size: int) -> dict[str, float]:
        """Collect the results of all processes, of ``size`` images; gives no metric."""
        self.gathered = collect_results(self.found(), size, self.collect_device) or []
        self.results: list[Any] = []
        return {}

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        return {}

    def found(self) -> list[Any]:
        """This process's results, one an image."""
        return self.results

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """What the report shows, ready for JSON; on the main process, after ``evaluate``."""


def add_record(runner: Runner, cfg: Config) -> Record | None:
    """Add a record to what ``runner.test()`` evaluates, before the metric that it goes with.

    Returns:
        The record, or None if no metric of the config has what it needs: ``CocoMetric`` with an
        annotation file, or ``IoUMetric``, not only formatting results.
    """
    make = task_of(cfg).record
    metrics = runner.test_loop.evaluator.metrics
    for place, metric in enumerate(metrics):
        record = None if getattr(metric, "format_only", False) else make(metric, runner, cfg)
        if record is not None:
            record.dataset_meta = metric.dataset_meta
            metrics.insert(place, record)  # before, because a metric drops its results in the end
            return record
    return None


def write_record(record: Record | None, folder: Path, **facts: Any) -> None:
    """Write ``evaluation.json``: ``facts`` and the record; without one, remove that of before."""
    if record is None:
        (folder / FILE).unlink(missing_ok=True)  # it would not go with the new metrics
        return
    content = {"version": VERSION, **facts, "images": len(record.gathered), **record.summary()}
    write_whole(folder / FILE, json.dumps(content) + "\n")
    print(f"for tools/report.py: {folder / FILE}")


def best_and_worst(
    items: Sequence[Item], score: Sequence[float], size: Sequence[int]
) -> list[tuple[str, Item]]:
    """Up to ``SHOWN`` best and worst items, none twice; of equals those with the greatest size."""
    order = sorted(range(len(items)), key=lambda i: (score[i], -size[i]))
    worst = order[: min(SHOWN, len(items) // 2)]
    rest = sorted(order[len(worst) :], key=lambda i: (-score[i], -size[i]))
    groups = {"best": rest[:SHOWN], "worst": worst}
    return [(name, items[i]) for name, chosen in groups.items() for i in chosen]


def draw_pair(
    path: str, truth: Any, found: Any, paint: Callable[[Array, Any, np.ndarray], None]
) -> dict[str, str]:
    """``truth`` and ``prediction`` of one image as JPEG, base64; none if it cannot be read.

    Args:
        path: the image.
        truth: what ``paint`` draws.
        found: the same.
        paint: draws into a small picture; the factors (2,) of x and y lead from the image to it.
    """
    image = read_image(Path(path))
    if image is None:
        return {}
    drawn = {}
    for name, content in (("truth", truth), ("prediction", found)):
        picture = fit(image, SIDE, SIDE)
        paint(picture, content, np.array(picture.shape[1::-1]) / image.shape[1::-1])
        jpeg = encode(picture, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 80)
        drawn[name] = base64.b64encode(jpeg).decode()
    return drawn
