"""The record of a detector's test: what COCO's evaluation says beyond its mean, and pictures."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from mmdet_agent.evaluation.coco import SCORE, Evaluation
from mmengine_agent.draw import Array, class_colours, paint_box, paint_mask
from mmengine_agent.report.record import Candidate, Record


class DetectionRecord(Record):
    """Boxes and masks as ``CocoMetric`` holds them, scored with pycocotools."""

    evaluation: Evaluation

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the paths of the images and the metric's own results."""
        paths = [sample.get("img_path", "") for sample in data_samples]
        found = [result for _, result in self.metric.results[-len(paths) :]]
        self.results += zip(paths, found, strict=True)

    def summary(self) -> dict[str, Any]:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            self.evaluation = Evaluation(self.metric, [result for _, result in self.gathered])
        pictures = self.pictures(self._candidates())
        return {**self.evaluation.content(), "pictures": pictures, "legend": []}  # named in there

    def _candidates(self) -> Iterator[Candidate]:
        for path, result in self.gathered:
            found, missed, wrong = self.evaluation.count(result["img_id"])
            if size := found + missed + wrong:
                score = 2 * found / (found + size)
                caption = f"F1 {score:.2f}: {found} found, {missed} missed, {wrong} wrong"
                yield Candidate(path, result["img_id"], score, size, caption)

    def paint(self, picture: Array, scale: np.ndarray, content: Any, side: str) -> None:
        """Draw masks, boxes and names of the image of that id."""
        made = self.evaluation
        palette = self.dataset_meta.get("palette")
        classes = dict(zip(made.categories, class_colours(len(made.names), [palette]), strict=True))
        # results of masks have the boxes, too
        coco = made.truth if side == "truth" else [*made.found.values()][-1]
        notes = [
            note
            for note in coco.imgToAnns[content]
            if note["category_id"] in classes and not note.get("iscrowd")
            if note.get("score", 1) >= SCORE
        ]
        if "segm" in made.found:
            for note in notes:
                mask = cv2.resize(coco.annToMask(note), picture.shape[1::-1]).astype(bool)
                paint_mask(picture, mask, classes[note["category_id"]])
        for note in notes:
            category, (left, top, width, height) = note["category_id"], note["bbox"]
            corners = np.array([left, top, left + width, top + height]) * [*scale, *scale]
            paint_box(picture, corners, classes[category], made.truth.cats[category]["name"])
