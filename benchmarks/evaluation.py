"""Time of COCO's evaluation: mmdet's CocoMetric (pycocotools) beside its FasterCocoMetric.

    python benchmarks/evaluation.py --images 5000 --metrics bbox segm
    pip install faster-coco-eval          # without it: CocoMetric alone

Annotations and predictions are drawn at random, as many as COCO's val2017 has of a detector: 7
objects and 100 predictions an image, of 80 classes; half of the objects are found, with boxes that
are a few pixels off. Times are seconds of this process's CPU time, of the metric alone.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import reporting
from candidates import at_least
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from pycocotools import mask as masks

from mmengine_agent.run.exit import run_tool

WIDTH, HEIGHT, CLASSES, OBJECTS, PREDICTIONS = 640, 480, 80, 7, 100
NAMES = tuple(f"class {number}" for number in range(CLASSES))
KINDS: dict[str, Any] = {"pycocotools": CocoMetric}
if find_spec("faster_coco_eval"):
    KINDS["faster-coco-eval"] = METRICS.get("FasterCocoMetric")

Results = list[tuple[dict[str, Any], dict[str, Any]]]  # as metrics keep them, one an image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=at_least(1), default=5000, help="%(default)s")
    add("--metrics", nargs="+", choices=["bbox", "segm"], default=["bbox"], help="%(default)s")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        ann = Path(folder, "instances.json")
        results = draw(args.images, ann)
        for name, kind in KINDS.items():
            seconds, scores = evaluated(kind, ann, results, args.metrics)
            found = [f"{scores[f'coco/{metric}_mAP']:.4f}" for metric in args.metrics]
            rows.append([name, f"{seconds:.1f}", " ".join(found)])
    print(reporting.table(("metric", "s", "mAP"), rows))


def evaluated(
    kind: Any, ann: Path, results: Results, metrics: list[str]
) -> tuple[float, dict[str, float]]:
    """Seconds of a metric, from its construction to its scores, and those."""
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        metric = kind(ann_file=str(ann), metric=metrics, prefix="coco")
        metric.dataset_meta = {"classes": NAMES}
        scores = metric.compute_metrics(results)
    return time.process_time() - start, {f"coco/{key}": value for key, value in scores.items()}


def draw(images: int, ann: Path) -> Results:
    """Write annotations, and draw predictions of them."""
    numbers = np.random.default_rng(0)
    notes: list[dict[str, Any]] = []
    results = []
    for image in range(images):
        boxes, labels = boxes_of(numbers, OBJECTS), numbers.integers(0, CLASSES, OBJECTS)
        for (x, y, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
            what = {"id": len(notes) + 1, "image_id": image, "category_id": label + 1, "iscrowd": 0}
            place = {"bbox": [x, y, x2 - x, y2 - y], "area": 0.8 * (x2 - x) * (y2 - y)}
            notes.append({**what, **place, "segmentation": [outline(x, y, x2, y2)]})
        found = numbers.random(OBJECTS) < 0.5
        near = boxes[found] + numbers.normal(0, 4, (int(found.sum()), 4))
        others = boxes_of(numbers, PREDICTIONS - len(near))
        all_boxes = np.concatenate([near, others]).clip(0, (WIDTH, HEIGHT) * 2)
        kinds = np.concatenate([labels[found], numbers.integers(0, CLASSES, len(others))])
        scores = numbers.random(PREDICTIONS) * np.where(np.arange(PREDICTIONS) < len(near), 1, 0.5)
        codes = masks.frPyObjects([outline(*box) for box in all_boxes.tolist()], HEIGHT, WIDTH)
        prediction = {"img_id": image, "bboxes": all_boxes, "scores": scores, "labels": kinds}
        size = {"width": WIDTH, "height": HEIGHT, "img_id": image}
        results.append((size, {**prediction, "masks": codes}))
    pictures = [{"id": i, "width": WIDTH, "height": HEIGHT} for i in range(images)]
    kinds_ = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    ann.write_text(json.dumps({"images": pictures, "annotations": notes, "categories": kinds_}))
    return results


def boxes_of(numbers: np.random.Generator, count: int) -> np.ndarray:
    """Boxes (count, 4), most of them small, within the picture."""
    sides = np.exp(numbers.normal(4, 1, (count, 2))).clip(4, (WIDTH, HEIGHT))
    corners = numbers.random((count, 2)) * ((WIDTH, HEIGHT) - sides)
    return np.concatenate([corners, corners + sides], 1)


def outline(x: float, y: float, x2: float, y2: float) -> list[float]:
    """An octagon in a box, as COCO lists polygons."""
    a, b = (x2 - x) / 4, (y2 - y) / 4
    corners = [(x + a, y), (x2 - a, y), (x2, y + b), (x2, y2 - b)]
    corners += [(x2 - a, y2), (x + a, y2), (x, y2 - b), (x, y + b)]
    return [each for corner in corners for each in corner]


if __name__ == "__main__":
    run_tool(main)
