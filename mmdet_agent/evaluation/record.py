"""The record of a detector's test: COCO's evaluation class by class and image by image, pictures.

K is the number of classes, T of IoU thresholds, R of recall steps.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from mmdet.evaluation import CocoMetric
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmengine_agent.draw import Array, class_colours, paint_box, paint_mask
from mmengine_agent.report.record import Candidate, Record

SCORE = 0.3  # what counts as a detection in the confusion matrix, in F1 and in the pictures
_KINDS = {"bbox": "box", "segm": "mask"}


class Evaluation:
    """COCO's evaluation of predictions.

    Args:
        metric: a ``CocoMetric`` that has evaluated them; its annotations, classes and thresholds
            are used.
        results: of each image, as that metric holds them.
    """

    def __init__(self, metric: CocoMetric, results: list[dict[str, Any]]) -> None:
        self.metric, self.truth, self.categories = metric, metric._coco_api, metric.cat_ids
        self.names = [self.truth.cats[each]["name"] for each in self.categories]
        self.thresholds = np.atleast_1d(metric.iou_thrs)
        self.at = int(np.argmin(np.abs(self.thresholds - 0.5)))  # index of IoU 0.5
        with TemporaryDirectory() as folder:
            files = metric.results2json(results, f"{folder}/results")
            kinds = [kind for kind in _KINDS if kind in metric.metrics]
            self.found = {kind: self._load(Path(files[kind])) for kind in kinds}
        self.precision = {_KINDS[kind]: self._precision(kind) for kind in kinds}
        self.pairs = self._match()

    def content(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        iou = float(self.thresholds[self.at])
        return {
            "task": "detection",
            "classes": self.names,
            "settings": {"score": SCORE, "iou": iou},
            "table": self.table(),
            "confusion": {"labels": [*self.names, "background"], "counts": self.confusion()},
            "curves": self.curves(),
        }

    def table(self) -> dict[str, Any]:
        """Objects and average precisions (0 to 1, None without objects) of each class."""
        columns: dict[str, list[Any]] = {"objects": [sum(row) for row in self.confusion()[:-1]]}
        parts = {"AP": self.thresholds > 0}
        parts |= {f"AP{iou}": np.isclose(self.thresholds, iou / 100) for iou in (50, 75)}
        for kind, precision in self.precision.items():
            for name, part in parts.items():
                if part.any():
                    means = precision[part].mean((0, 1)).round(6).tolist()
                    columns[f"{kind} {name}"] = [None if each < 0 else each for each in means]
        rows = zip(*columns.values(), strict=True)
        return {"columns": list(columns), "rows": [list(row) for row in rows], "digits": 3}

    def curves(self) -> dict[str, Any]:
        """Precision at each recall, at IoU 0.5, of each class; None for one without objects."""
        found = {}
        for kind, precision in self.precision.items():
            lines = precision[self.at].T.round(4).tolist()
            found[kind] = [None if line[0] < 0 else line for line in lines]
        steps = next(iter(self.precision.values())).shape[1]
        return {"recall": np.linspace(0, 1, steps).round(4).tolist(), "precision": found}

    def confusion(self) -> list[list[int]]:
        """Counts (K + 1, K + 1) of truth (rows) by prediction; the last of each is background."""
        counts = np.zeros((len(self.names) + 1,) * 2, dtype=int)
        for row, column in (pair for pairs in self.pairs.values() for pair in pairs):
            counts[row, column] += 1
        return counts.tolist()

    def count(self, image: Any) -> tuple[int, int, int]:
        """Found, missed and wrong boxes of an image."""
        pairs, none = self.pairs.get(image, []), len(self.names)
        found = sum(truth == guess for truth, guess in pairs)
        missed = sum(truth not in (guess, none) for truth, guess in pairs)
        wrong = sum(guess not in (truth, none) for truth, guess in pairs)
        return found, missed, wrong

    def _match(self) -> dict[Any, list[tuple[int, int]]]:
        """Of each image its pairs of true and predicted label; K is background.

        Boxes of any class are matched greedily, the surest first; those on crowds do not count.
        """
        boxes, none = self.found["bbox"], len(self.names)
        scored = self._score("bbox", [self.thresholds[self.at]], apart=False)
        label = {category: i for i, category in enumerate(self.categories)}
        found = {}
        for image in filter(None, scored.evalImgs):
            sure = (np.array(image["dtScores"]) >= SCORE) & ~image["dtIgnore"][0].astype(bool)
            ids = np.array(image["dtIds"])[sure].tolist()
            guess = {each: label[boxes.anns[each]["category_id"]] for each in ids}
            notes = zip(image["gtIds"], image["gtMatches"][0], image["gtIgnore"], strict=True)
            pairs = [
                (label[self.truth.anns[each]["category_id"]], guess.pop(match, none))
                for each, match, ignored in notes
                if not ignored
            ]
            found[image["image_id"]] = pairs + [(none, each) for each in guess.values()]
        return found

    def _precision(self, kind: str) -> np.ndarray:
        """Precisions (T, R, K), -1 for classes without objects."""
        scored = self._score(kind, self.thresholds)
        scored.accumulate()
        # pycocotools sorts the classes, and labels need not be so
        order = np.searchsorted(scored.params.catIds, self.categories)
        return scored.eval["precision"][:, :, order, 0, -1]

    def _score(self, kind: str, thresholds: Any, apart: bool = True) -> COCOeval:
        """The evaluation of boxes or masks, of the classes apart or as if they were one."""
        scored = COCOeval(self.truth, self.found[kind], kind)
        params = scored.params
        params.imgIds, params.catIds = self.truth.getImgIds(), list(self.categories)
        params.areaRng, params.areaRngLbl = [[0, 1e10]], ["all"]
        params.maxDets = list(self.metric.proposal_nums)
        params.iouThrs, params.useCats = np.array(thresholds), int(apart)
        scored.evaluate()
        return scored

    def _load(self, file: Path) -> COCO:
        # loadRes cannot take an empty list; a box of score 0 and of no size changes no number
        nothing = {"image_id": self.truth.getImgIds()[0], "category_id": self.categories[0]}
        nothing |= {"bbox": [0, 0, 0, 0], "score": 0}
        return self.truth.loadRes(json.loads(file.read_text()) or [nothing])


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
