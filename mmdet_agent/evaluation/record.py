"""The record of a detector's test: what COCO's evaluation says beyond its mean, and pictures."""

import contextlib
import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from pycocotools import mask as run_lengths
from tqdm import tqdm

from mmdet_agent.evaluation.coco import SCORE, Evaluation
from mmengine_agent.draw import Array, Colour, class_colours, paint_box, paint_mask
from mmengine_agent.report.record import Record, best_and_worst, draw_pair


class DetectionRecord(Record):
    """Boxes and masks as ``CocoMetric`` holds them, scored with pycocotools.

    Args:
        metric: the config's own ``CocoMetric``; its results and thresholds are used.
        dataset: the test set, which knows where the images are.
        ann_file: the annotation file of that metric.
    """

    def __init__(self, metric: BaseMetric, dataset: Any, ann_file: str) -> None:
        super().__init__(metric)
        self.metric, self.dataset, self.ann_file = metric, dataset, ann_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Nothing to do: ``CocoMetric`` keeps the results of each batch."""

    def found(self) -> list[Any]:
        return list(self.metric.results)

    def summary(self) -> dict[str, Any]:
        results = [result for _, result in self.gathered]
        classes = self.dataset_meta["classes"]
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            evaluation = Evaluation(self.ann_file, classes, results, self.metric)
            content = evaluation.content()
        # names are in the pictures
        return {**content, "pictures": self._pictures(evaluation), "legend": []}

    def _pictures(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        infos = (self.dataset.get_data_info(i) for i in range(len(self.dataset)))
        places = {info["img_id"]: info["img_path"] for info in infos}
        found = {result["img_id"]: result for result in evaluation.results}
        palette = self.dataset_meta.get("palette")
        colours = class_colours(len(evaluation.names), [palette])
        classes = [*zip(evaluation.names, colours, strict=True)]
        rows = evaluation.by_image()
        sizes = [row["found"] + row["missed"] + row["wrong"] for row in rows]
        chosen = best_and_worst(rows, [row["score"] for row in rows], sizes)
        pictures = []
        for group, row in tqdm(chosen, desc="pictures", disable=None):
            image = row["image"]
            truth, sure = evaluation.truth_of(image), _sure(found[image])
            drawn = draw_pair(places[image], truth, sure, partial(paint_objects, classes))
            caption = "F1 {score:.2f}: {found} found, {missed} missed, {wrong} wrong".format(**row)
            about = {"image": places[image], "group": group, "score": row["score"]}
            pictures.append({**about, "told": caption, **drawn})
        return pictures


def record_of(metric: BaseMetric, runner: Runner, cfg: Config) -> Record | None:
    """The record that goes with a ``CocoMetric`` of boxes; None with any other metric."""
    evaluators = (
        cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
    )
    files = [each.ann_file for each in evaluators if each.get("ann_file")]
    # its subclasses score in ways of their own
    if not files or type(metric) is not CocoMetric or "bbox" not in metric.metrics:
        return None
    return DetectionRecord(metric, runner.test_loop.dataloader.dataset, files[0])


def _sure(found: dict[str, Any]) -> dict[str, Any]:
    """Of an image's results those from ``SCORE`` on."""
    rows = np.flatnonzero(np.asarray(found["scores"]) >= SCORE)
    return {k: [found[k][i] for i in rows] for k in ("bboxes", "labels", "masks") if k in found}


def paint_objects(
    classes: list[tuple[str, Colour]], picture: Array, objects: dict[str, Any], scale: np.ndarray
) -> None:
    """Draw masks, boxes and names.

    Args:
        classes: names and colours in the order of the labels.
        picture: an image (H, W, 3), drawn over.
        objects: ``bboxes`` (n, 4) as corners in pixels of another size of the image, ``labels``
            (n,), and maybe ``masks``, n run-length codes.
        scale: factors of x and y from that size to the picture's.
    """
    for code, label in zip(objects.get("masks", ()), objects["labels"], strict=False):
        mask = cv2.resize(run_lengths.decode(code), picture.shape[1::-1]).astype(bool)
        paint_mask(picture, mask, classes[label][1])
    for box, label in zip(objects["bboxes"], objects["labels"], strict=True):
        text, colour = classes[label]
        paint_box(picture, np.asarray(box) * [*scale, *scale], colour, text)
