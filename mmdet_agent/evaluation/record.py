"""The record of a detector's test: what COCO's evaluation says beyond its mean, and pictures."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from tqdm import tqdm

from mmdet_agent.evaluation.coco import SCORE, Evaluation
from mmdet_agent.evaluation.pictures import draw_detection
from mmengine_agent.report.pictures import palette_of
from mmengine_agent.report.record import Record, best_and_worst


class DetectionRecord(Record):
    """Boxes and masks as ``CocoMetric`` holds them, scored with pycocotools.

    Args:
        beside: the config's own ``CocoMetric``; its results and thresholds are used.
        dataset: the test set, which knows where the images are.
        ann_file: the annotation file of that metric.
    """

    def __init__(self, beside: BaseMetric, dataset: Any, ann_file: str) -> None:
        super().__init__(beside)
        self.beside, self.dataset, self.ann_file = beside, dataset, ann_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Nothing to do: ``CocoMetric`` keeps the results of each batch."""

    def found(self) -> list[Any]:
        return list(self.beside.results)

    def summary(self) -> dict[str, Any]:
        results = [result for _, result in self.gathered]
        classes = self.dataset_meta["classes"]
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            evaluation = Evaluation(self.ann_file, classes, results, self.beside)
            content = evaluation.content()
        # names are in the pictures
        return {**content, "pictures": self._pictures(evaluation), "legend": []}

    def _pictures(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        infos = (self.dataset.get_data_info(i) for i in range(len(self.dataset)))
        places = {info["img_id"]: info["img_path"] for info in infos}
        found = {result["img_id"]: result for result in evaluation.results}
        colors = (evaluation.names, palette_of(self.dataset_meta))
        rows = evaluation.by_image()
        sizes = [row["found"] + row["missed"] + row["wrong"] for row in rows]
        chosen = best_and_worst(rows, [row["score"] for row in rows], sizes)
        pictures = []
        for group, row in tqdm(chosen, desc="pictures", disable=None):
            image = row["image"]
            drawn = draw_detection(
                places[image], evaluation.truth_of(image), found[image], *colors, SCORE
            )
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
