"""Truths and predictions of both tasks, and their records, for the tests of the report."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmseg.evaluation import IoUMetric
from pycocotools import mask as run_lengths

from mmdet_agent.evaluation.record import Evaluation
from mmengine_agent.report.record import add_record
from mmseg_agent.evaluation.record import SegmentationRecord

IDS = (7, 3, 5)  # of categories: not in order


def square(left: float, top: float, side: float) -> list[float]:
    """A box as corners."""
    return [left, top, left + side, top + side]


def note(number: int, image: int, label: int, box: list[float], crowd: int = 0) -> dict[str, Any]:
    """A COCO annotation; its mask is its box."""
    left, top, right, bottom = box
    outline = [left, top, right, top, right, bottom, left, bottom]
    return {
        "id": number,
        "image_id": image,
        "category_id": IDS[label],
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": crowd,
        "segmentation": [outline] if not crowd else {"size": [96, 96], "counts": [0, 96 * 96]},
    }


def coco_file(path: Path, images: int, notes: list[dict[str, Any]], names: Any = "abc") -> str:
    kinds = [{"id": i, "name": name} for i, name in zip(IDS, names, strict=True)]
    files = [{"id": i, "file_name": f"{i}.jpg", "height": 96, "width": 96} for i in range(images)]
    path.write_text(json.dumps({"images": files, "annotations": notes, "categories": kinds}))
    return str(path)


def result(image: int, *found: tuple[int, float, list[float]], masks: bool = False) -> Any:
    """A prediction: label, score and box of each instance; masks are the boxes."""
    boxes = np.array([box for _, _, box in found], dtype=np.float32).reshape(-1, 4)
    labels = np.array([label for label, _, _ in found], dtype=int)
    scores = np.array([score for _, score, _ in found], dtype=np.float32)
    prediction = {"img_id": image, "bboxes": boxes, "labels": labels, "scores": scores}
    if masks:
        outlines = [note(1, 0, 0, box.tolist())["segmentation"] for box in boxes]
        prediction["masks"] = [run_lengths.frPyObjects(each, 96, 96)[0] for each in outlines]
    return prediction


def evaluated(
    ann_file: str, names: Any, results: list[Any], *kinds: str
) -> tuple[Evaluation, dict[str, float]]:
    """The evaluation of some predictions, and mmdet's metrics of them."""
    metric = CocoMetric(ann_file, metric=[*kinds])
    metric.dataset_meta = {"classes": tuple(names)}
    metric.results = [({}, each) for each in results]
    scores = metric.evaluate(len(results))
    return Evaluation(metric, results), scores


def seg_samples(count: int, classes: int, paths: Any = None) -> list[dict[str, Any]]:
    """Truths with ignored pixels, and predictions of which half is right."""
    random = np.random.RandomState(0)
    samples = []
    for i in range(count):
        truth = random.randint(0, classes, (1, 40, 60))
        guess = np.where(random.rand(1, 40, 60) < 0.5, truth, random.randint(0, classes, (1, 1, 1)))
        truth[random.rand(1, 40, 60) < 0.1] = 255
        sample = {"img_path": str(paths[i] if paths else f"{i}.jpg")}
        for key, labels in (("gt_sem_seg", truth), ("pred_sem_seg", guess)):
            sample[key] = {"data": torch.from_numpy(labels)}
        samples.append(sample)
    return samples


def seg_record(
    samples: list[dict[str, Any]], names: Any, **meta: Any
) -> tuple[SegmentationRecord, Any]:
    """The record of some predictions, and mmseg's metrics of them."""
    evaluator = Evaluator(IoUMetric())
    loop = SimpleNamespace(evaluator=evaluator)
    palette = [[50 * i % 256, 100, 200] for i in range(len(names))]
    evaluator.dataset_meta = {"classes": tuple(names), "palette": palette, **meta}
    record = add_record(SimpleNamespace(test_loop=loop), Config({"default_scope": "mmseg"}))
    assert isinstance(record, SegmentationRecord)
    return record, evaluator.offline_evaluate(samples, chunk_size=2)


def write_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for path in paths:
        cv2.imwrite(str(path), random.randint(0, 255, (96, 96, 3)))
    return paths
