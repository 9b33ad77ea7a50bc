"""Panoptic quality: how well the segments of an image are found.

    PQ = Σ IoU of what is found / (found + ½ wrong + ½ missed)     (arXiv 1801.00868, eq. 1)

A segment is found if one of its class has an IoU above ½ with it; pixels of no class do not count.
n is the number of true segments of an image, m of predicted ones, K of classes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmdet.datasets.api_wrappers import COCOPanoptic
from mmdet.evaluation import INSTANCE_OFFSET
from mmengine.evaluator import BaseMetric

from mmdet_agent.data.segments import read_segment_ids

NEEDED = "panopticapi: pip install git+https://github.com/cocodataset/panopticapi.git"


class Segments(NamedTuple):
    """The segments of an image."""

    places: np.ndarray  # (H, W), of each pixel's segment, from 1 on; 0 is of none
    labels: np.ndarray  # (n,), of the segments in their order
    crowd: np.ndarray  # (n,), bool: a region of many things, which is not scored


class Matches(NamedTuple):
    """Which segments of an image are found."""

    ious: np.ndarray  # (n, m), of each true and predicted segment; 0 where they do not match
    missed: np.ndarray  # (n,), bool
    wrong: np.ndarray  # (m,), bool


def true_segments(api: COCOPanoptic, folder: str, image: int, labels: dict[int, int]) -> Segments:
    """The segments of an image as a panoptic set lists them; ``labels`` are by category id."""
    listed = [each for each in api.imgToAnns[image] if each["category_id"] in labels]
    ids = read_segment_ids(Path(folder, api.imgs[image]["segm_file"]))
    known = np.array([labels[each["category_id"]] for each in listed], int)
    crowd = np.array([each.get("iscrowd", 0) for each in listed], bool)
    return Segments(_places(ids, [each["id"] for each in listed]), known, crowd)


def predicted_segments(sample: Any, count: int) -> Segments:
    """The segments of a prediction, of ``count`` classes; other labels stand for none."""
    ids = np.asarray(sample["pred_panoptic_seg"]["sem_seg"].cpu())[0]
    # mmdet's own metric writes COCO's 0, of no class, into the map; things are numbered from 1
    found = [each for each in np.unique(ids).tolist() if each and each % INSTANCE_OFFSET < count]
    labels = np.array(found, int) % INSTANCE_OFFSET
    return Segments(_places(ids, found), labels, np.zeros(len(found), bool))


def _places(ids: np.ndarray, known: Sequence[int]) -> np.ndarray:
    values, inverse = np.unique(ids, return_inverse=True)
    places = {each: place for place, each in enumerate(known, 1)}
    table = np.array([places.get(value, 0) for value in values.tolist()])
    return table[inverse].reshape(ids.shape)


def match_segments(truth: Segments, guess: Segments, same_class: bool = True) -> Matches:
    """Match the segments of an image, of one class or whatever their classes."""
    rows, columns = len(truth.labels) + 1, len(guess.labels) + 1
    pixels = np.bincount((truth.places * columns + guess.places).ravel(), minlength=rows * columns)
    table = pixels.reshape(rows, columns)
    both, none = table[1:, 1:], table[0, 1:]
    union = table.sum(1)[1:, None] + table.sum(0)[1:] - both - none
    alike = truth.labels[:, None] == guess.labels
    ious = both / np.maximum(union, 1)
    ious *= (ious > 0.5) & ~truth.crowd[:, None] & (alike | (not same_class))
    # what lies for the most part on no class, or on a crowd of its own, is not wrong
    excused = none + (both * (truth.crowd[:, None] & alike)).sum(0)
    wrong = ~ious.any(0) & (excused <= table.sum(0)[1:] / 2)
    return Matches(ious, ~ious.any(1) & ~truth.crowd, wrong)


def count_segments(truth: Segments, guess: Segments, count: int) -> np.ndarray:
    """Of each class the sum of IoUs and the numbers of found, wrong and missed ones, (K, 4)."""
    ious, missed, wrong = match_segments(truth, guess)
    rows = np.zeros((count, 4))
    found = ious.any(1)
    np.add.at(rows, truth.labels, np.stack([ious.sum(1), found, 0 * found, missed], 1))
    np.add.at(rows[:, 2], guess.labels, wrong)
    return rows


def panoptic_quality(rows: np.ndarray) -> np.ndarray:
    """PQ, SQ and RQ in per cent of each class (K, 3), NaN where nothing is or is found."""
    ious, found, wrong, missed = rows.T
    total = found + wrong / 2 + missed / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        quality = [ious / total, np.where(found, ious / found, 0 * total / total), found / total]
    return 100 * np.transpose(quality)


class PanopticMetric(BaseMetric):
    """PQ, SQ and RQ of all classes, things and stuff, as mmdet's ``CocoPanopticMetric`` has them.

    Args:
        ann_file: JSON of panoptic COCO.
        seg_prefix: folder of its PNGs.
        settings: what mmdet's metric knows beyond; submissions to COCO's server are not written.

    Raises:
        ImportError: for what only mmdet's metric does, which needs panopticapi.
    """

    default_prefix = "coco_panoptic"

    def __init__(
        self,
        ann_file: str | None = None,
        seg_prefix: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(collect_device, prefix)
        if not ann_file or not seg_prefix or settings.get("outfile_prefix"):
            raise ImportError(f"a score without ann_file, or with outfile_prefix, needs {NEEDED}")
        self.seg_prefix, self.format_only = seg_prefix, False
        self._coco_api = COCOPanoptic(ann_file)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the segments of each image."""
        for sample in data_samples:
            truth, guess = segments_of(self, sample)
            self.results.append(count_segments(truth, guess, len(self.dataset_meta["classes"])))

    def compute_metrics(self, results: list[np.ndarray]) -> dict[str, float]:
        """The means over the classes that are there or found."""
        found = panoptic_quality(np.sum(results, 0))
        things = np.isin(self.dataset_meta["classes"], self.dataset_meta["thing_classes"])
        metrics: dict[str, float] = {}
        for end, part in {"": things | True, "_th": things, "_st": ~things}.items():
            known = found[part & ~np.isnan(found[:, 0])]
            if len(known):
                names = (f"{name}{end}" for name in ("PQ", "SQ", "RQ"))
                metrics |= dict(zip(names, known.mean(0).tolist(), strict=True))
        return metrics


def segments_of(metric: Any, sample: dict[str, Any]) -> tuple[Segments, Segments]:
    """The true and the predicted segments of an image, as a panoptic metric knows them."""
    names = metric.dataset_meta["classes"]
    ids = metric._coco_api.get_cat_ids(cat_names=list(names))
    labels = {category: label for label, category in enumerate(ids)}
    truth = true_segments(metric._coco_api, metric.seg_prefix, sample["img_id"], labels)
    return truth, predicted_segments(sample, len(names))
