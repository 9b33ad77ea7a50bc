"""COCO's evaluation of a detector, class by class and image by image, by pycocotools.

K is the number of classes, T of IoU thresholds, R of recall steps, M of limits of detections an
image.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmengine_agent.report.record import BACKGROUND

SCORE = 0.3  # what counts as a detection in the confusion matrix, in F1 and in the pictures
_KINDS = {"bbox": "box", "segm": "mask"}
_ALL_SIZES = [[0, 1e10]]


class Evaluation:
    """COCO's evaluation of predictions against an annotation file.

    Args:
        ann_file: COCO annotations.
        classes: names, in the order of the labels.
        results: of each image ``img_id``, ``bboxes`` (n, 4) as corners in pixels, ``scores`` (n,),
            ``labels`` (n,), and of an instance segmentor ``masks``, n run-length codes.
        settings: the ``CocoMetric`` whose ``metrics``, ``iou_thrs`` and ``proposal_nums`` to use.
    """

    def __init__(
        self, ann_file: str, classes: Sequence[str], results: list[Any], settings: Any
    ) -> None:
        self.truth = COCO(ann_file)
        # as mmdet numbers labels: by the order of the file's categories
        self.categories = self.truth.getCatIds(catNms=list(classes))
        self.names = [self.truth.cats[each]["name"] for each in self.categories]
        self.results, self.settings = results, settings
        kinds = [kind for kind in _KINDS if kind in settings.metrics]
        self.scored = {kind: self._score(kind) for kind in kinds}
        thresholds = self.scored["bbox"].params.iouThrs
        self.at = int(np.argmin(np.abs(thresholds - 0.5)))  # index of IoU 0.5
        self.iou = float(thresholds[self.at])

    def content(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        return {
            "task": "detection",
            "classes": self.names,
            "settings": {"score": SCORE, "iou": self.iou},
            "table": self.table(),
            "confusion": {"labels": [*self.names, BACKGROUND], "counts": self.confusion()},
            "curves": self.curves(),
        }

    def table(self) -> dict[str, Any]:
        """Objects and average precisions (0 to 1, None without objects) of each class."""
        columns: dict[str, list[Any]] = {"objects": [sum(row) for row in self.confusion()[:-1]]}
        for kind, scored in self.scored.items():
            precision = self._precision(scored)
            limits = list(scored.params.maxDets)
            # as pycocotools sums up: AP with 100 detections an image, AP50 with the most
            hundred = limits.index(100) if 100 in limits else -1
            columns[f"{_KINDS[kind]} AP"] = _means(precision[..., hundred])
            for at, threshold in enumerate(scored.params.iouThrs):
                if round(float(threshold), 4) in (0.5, 0.75):
                    name = f"{_KINDS[kind]} AP{threshold * 100:.0f}"
                    columns[name] = _means(precision[at : at + 1, ..., -1])
        rows = zip(*columns.values(), strict=True)
        return {"columns": list(columns), "rows": [list(row) for row in rows], "digits": 3}

    def curves(self) -> dict[str, Any]:
        """Precision at each recall, at IoU 0.5, of each class; None for one without objects."""
        found = {}
        for kind, scored in self.scored.items():
            precision = self._precision(scored)[self.at, ..., -1].T
            lines = [None if line[0] < 0 else np.round(line, 4).tolist() for line in precision]
            found[_KINDS[kind]] = lines
        recall = self.scored["bbox"].params.recThrs
        return {"recall": np.round(recall, 4).tolist(), "precision": found}

    def confusion(self) -> list[list[int]]:
        """Counts (K + 1, K + 1) of truth (rows) by prediction; the last of each is background.

        Boxes of any class are matched greedily, the surest first; those on crowds do not count.
        """
        scored = self._score("bbox", surest=True)
        label = {category: i for i, category in enumerate(self.categories)}
        none = len(label)
        counts = np.zeros((none + 1, none + 1), dtype=int)
        for image in filter(None, scored.evalImgs):
            truth = [label[self.truth.anns[each]["category_id"]] for each in image["gtIds"]]
            guess = {i: label[scored.cocoDt.anns[i]["category_id"]] for i in image["dtIds"]}
            pairs = [*zip(truth, image["gtMatches"][0], image["gtIgnore"], strict=True)]
            matched = {match for _, match, ignored in pairs if match and not ignored}
            for row, match, ignored in pairs:
                if not ignored:
                    counts[row, guess[match] if match else none] += 1
            for i, ignored in zip(image["dtIds"], image["dtIgnore"][0], strict=True):
                if i not in matched and not ignored:
                    counts[none, guess[i]] += 1
        return counts.tolist()

    def by_image(self) -> list[dict[str, Any]]:
        """Of each image with objects or detections: found, missed and wrong boxes, and F1."""
        counts: dict[Any, np.ndarray] = defaultdict(lambda: np.zeros(3, dtype=int))
        for each in filter(None, self.scored["bbox"].evalImgs):
            sure = (np.array(each["dtScores"]) >= SCORE) & ~each["dtIgnore"][self.at].astype(bool)
            right = sure & (each["dtMatches"][self.at] > 0)
            objects = np.count_nonzero(each["gtIgnore"] == 0)
            found, wrong = np.count_nonzero(right), np.count_nonzero(sure & ~right)
            counts[each["image_id"]] += (found, objects - found, wrong)
        rows = []
        tested = {result["img_id"] for result in self.results}
        for image, (found, missed, wrong) in counts.items():
            if image in tested and found + missed + wrong:
                score = 2 * found / (2 * found + missed + wrong)
                counted = {"found": int(found), "missed": int(missed), "wrong": int(wrong)}
                rows.append({"image": image, "score": float(score), **counted})
        return rows

    def truth_of(self, image: Any) -> dict[str, Any]:
        """An image's objects, in the form of a result; masks (n) of (height, width) or none."""
        notes = [
            note
            for note in self.truth.imgToAnns[image]
            if note["category_id"] in self.categories and not note.get("iscrowd")
        ]
        boxes = np.array([note["bbox"] for note in notes], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = [self.categories.index(note["category_id"]) for note in notes]
        truth: dict[str, Any] = {"bboxes": boxes, "labels": np.array(labels, dtype=int)}
        if "segm" in self.scored:
            truth["masks"] = [self.truth.annToRLE(note) for note in notes]
        return truth

    def _precision(self, scored: COCOeval) -> np.ndarray:
        """Precisions (T, R, K, M); pycocotools sorts the classes, and labels need not be so."""
        order = [list(scored.params.catIds).index(category) for category in self.categories]
        return scored.eval["precision"][:, :, order, 0]

    def _score(self, kind: str, surest: bool = False) -> COCOeval:
        """The evaluation of boxes or masks; ``surest``: of sure boxes at IoU 0.5, of any class."""
        scored = COCOeval(self.truth, self._predictions(kind, SCORE if surest else 0), kind)
        params = scored.params
        params.imgIds, params.catIds = self.truth.getImgIds(), list(self.categories)
        params.areaRng, params.areaRngLbl = _ALL_SIZES, ["all"]
        params.maxDets = list(self.settings.proposal_nums)
        params.iouThrs = np.atleast_1d(self.settings.iou_thrs)
        if surest:
            params.useCats, params.iouThrs = 0, np.array([self.iou])
        scored.evaluate()
        if not surest:
            scored.accumulate()
        return scored

    def _predictions(self, kind: str, least: float) -> COCO:
        found = []
        for result in self.results:
            scores, masks = result["scores"], None
            if kind == "segm":
                scores, masks = result.get("mask_scores", scores), result.get("masks")
            for i in np.flatnonzero(np.asarray(scores) >= least):
                category, score = self.categories[result["labels"][i]], float(scores[i])
                left, top, right, bottom = result["bboxes"][i].tolist()
                box = {"bbox": [left, top, right - left, bottom - top]}
                shape: dict[str, Any] = box if masks is None else {"segmentation": masks[i]}
                about = {"image_id": result["img_id"], "category_id": category, "score": score}
                found.append({**about, **shape})
        if found:
            return self.truth.loadRes(found)
        empty = COCO()  # which loadRes cannot make
        empty.dataset = {**self.truth.dataset, "annotations": []}
        empty.createIndex()
        return empty


def _means(precision: np.ndarray) -> list[float | None]:
    """Mean precision of each class, of (T, R, K) with -1 where a class has no objects."""
    flat = precision.reshape(-1, precision.shape[-1]).T
    return [None if np.all(line < 0) else round(float(line[line > -1].mean()), 6) for line in flat]
