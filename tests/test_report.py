"""The report: what testing records, what a work directory holds, and the page that shows both."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import make_demo_data
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmseg.evaluation import IoUMetric
from mmseg.registry import MODELS
from pycocotools import mask as run_lengths

from mmdet_agent.evaluation.coco import Evaluation
from mmengine_agent.report import cli
from mmengine_agent.report.page import metric_rows, render
from mmengine_agent.report.record import FILE, add_record, best_and_worst, write_record
from mmengine_agent.report.workdir import history, read_work_dir
from mmengine_agent.run.exit import run_tool
from mmseg_agent.evaluation.record import SegmentationRecord, table

ROOT = Path(__file__).parents[1]
MATH = r"$\no{$"  # which matplotlib would take for a formula, and a wrong one
EVIL = "<script>alert(1)</script>"
SECTIONS = ["metrics", "curves", "classes", "precision", "confusion", "predictions"]
SECTIONS += ["config", "environment"]
TASKS = ("detection", "segmentation")
IDS = (7, 3, 5)  # of categories: not in order


# ---- detection ----


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


def settings(*kinds: str) -> SimpleNamespace:
    thresholds = np.linspace(0.5, 0.95, 10)
    return SimpleNamespace(metrics=kinds, iou_thrs=thresholds, proposal_nums=[100, 300, 1000])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Any]]:
    """Annotations of 12 images with a crowd, and predictions that are shifted, wrong or missing."""
    random = np.random.RandomState(0)
    notes, results = [], []
    for image in range(12):
        found = []
        for _ in range(random.randint(0, 6)):
            label, box = random.randint(3), square(*random.uniform(5, 55, 2), random.uniform(8, 35))
            notes.append(note(len(notes) + 1, image, label, box))
            seen = label if random.rand() < 0.8 else random.randint(3)
            if random.rand() < 0.8:
                found.append((seen, random.rand(), (box + random.normal(0, 2, 4)).tolist()))
        found.append((random.randint(3), random.rand(), square(60, 60, 20)))
        results.append(result(image, *found, masks=True))
    notes.append(note(len(notes) + 1, 0, 1, square(0, 0, 90), crowd=1))
    path = tmp_path_factory.mktemp("scenes") / "scenes.json"
    return coco_file(path, 12, notes), results


def test_the_means_over_classes_are_the_metrics_of_mmdet(scenes: tuple[str, list[Any]]) -> None:
    ann_file, results = scenes
    metric = CocoMetric(ann_file, metric=["bbox", "segm"])
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    metric.results = [({}, each) for each in results]
    wanted = metric.evaluate(len(results))

    found = Evaluation(ann_file, "abc", results, settings("bbox", "segm")).table()
    means = dict(zip(found["columns"], np.mean(found["rows"], axis=0), strict=True))
    for ours, theirs in (("box AP", "bbox_mAP"), ("mask AP", "segm_mAP")):
        for limit in ("", "50", "75"):
            key = f"coco/{theirs}_{limit}".rstrip("_")
            assert 0 < wanted[key] < 1
            assert means[ours + limit] == pytest.approx(wanted[key], abs=6e-4)


def test_a_class_has_its_own_row_whatever_its_number(tmp_path: Path) -> None:
    boxes = [square(5, 5, 20), square(40, 5, 20), square(40, 40, 20)]
    notes = [note(1, 0, 0, boxes[0]), note(2, 0, 1, boxes[1]), note(3, 0, 1, boxes[2])]
    ann_file = coco_file(tmp_path / "truth.json", 1, notes)
    results = [result(0, (0, 0.9, boxes[0]), (1, 0.9, boxes[1]))]
    found = Evaluation(ann_file, "abc", results, settings("bbox"))
    assert found.names == ["a", "b", "c"]
    rows = [dict(zip(found.table()["columns"], row, strict=True)) for row in found.table()["rows"]]
    assert [row["objects"] for row in rows] == [1, 2, 0]
    assert [row["box AP50"] for row in rows] == [1, pytest.approx(51 / 101, abs=1e-4), None]
    lines = found.curves()["precision"]["box"]
    assert lines[0] == [1] * 101
    assert lines[1] == [1] * 51 + [0] * 50
    assert lines[2] is None


def test_confusions_are_counted_by_hand(tmp_path: Path) -> None:
    spots = [square(5, 5, 20), square(40, 5, 20), square(70, 5, 20), square(5, 60, 20)]
    notes = [note(i + 1, 0, label, spots[i]) for i, label in enumerate((0, 0, 1, 2))]
    notes.append(note(9, 1, 1, square(0, 0, 96), crowd=1))
    ann_file = coco_file(tmp_path / "truth.json", 2, notes)
    first = result(
        0,
        (0, 0.9, spots[0]),  # right
        (0, 0.8, spots[0]),  # again: an object is found once
        (1, 0.7, spots[1]),  # a taken for b
        (1, 0.2, spots[2]),  # not sure enough: b is missed
        (2, 0.9, square(60, 60, 20)),  # c where nothing is, and the c that is there is missed
    )
    crowd = result(1, (1, 0.9, square(10, 10, 30)))  # on the crowd: neither right nor wrong
    found = Evaluation(ann_file, "abc", [first, crowd], settings("bbox"))
    assert found.confusion() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 0]]
    (row,) = found.by_image()  # the crowd alone says nothing of an image
    assert (row["found"], row["missed"], row["wrong"]) == (1, 3, 3)
    assert row["score"] == pytest.approx(2 / (2 + 3 + 3))


def test_every_object_and_every_sure_box_is_in_the_confusion_matrix(
    scenes: tuple[str, list[Any]],
) -> None:
    ann_file, results = scenes
    found = Evaluation(ann_file, "abc", results, settings("bbox"))
    counts = np.array(found.confusion())
    assert counts.sum(1)[:-1].tolist() == [row[0] for row in found.table()["rows"]]
    outside = [each for each in results if each["img_id"]]  # the crowd of image 0 takes some
    sure = sum(int((each["scores"] >= 0.3).sum()) for each in outside)
    assert sure <= counts[:, :-1].sum() <= sure + len(results[0]["scores"])


def test_no_prediction_at_all_is_a_result(tmp_path: Path) -> None:
    ann_file = coco_file(tmp_path / "truth.json", 1, [note(1, 0, 1, square(5, 5, 20))])
    found = Evaluation(ann_file, "abc", [result(0)], settings("bbox", "segm")).content()
    assert [row[1] for row in found["table"]["rows"]] == [None, 0, None]
    assert found["confusion"]["counts"][1] == [0, 0, 0, 1]


# ---- segmentation ----


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


def seg_record(samples: list[dict[str, Any]], names: Any) -> tuple[SegmentationRecord, Any]:
    """The record of some predictions, and mmseg's metrics of them."""
    evaluator = Evaluator(IoUMetric())
    loop = SimpleNamespace(evaluator=evaluator)
    palette = [[50 * i % 256, 100, 200] for i in range(len(names))]
    evaluator.dataset_meta = {"classes": tuple(names), "palette": palette}
    record = add_record(SimpleNamespace(test_loop=loop), Config({"default_scope": "mmseg"}))
    assert isinstance(record, SegmentationRecord)
    return record, evaluator.offline_evaluate(samples, chunk_size=2)


@pytest.mark.parametrize("stray", [255, 9], ids=["labels in order", "labels beyond the classes"])
def test_iou_and_accuracy_of_classes_are_those_of_mmseg(stray: int) -> None:
    samples = seg_samples(5, 4)
    for sample in samples:
        sample["gt_sem_seg"]["data"][0, 0, :7] = stray
    record, metrics = seg_record(samples, "wxyz")
    found = record.summary()
    columns = dict(
        zip(found["table"]["columns"], np.transpose(found["table"]["rows"]), strict=True)
    )
    areas = [
        IoUMetric.intersect_and_union(
            sample["pred_sem_seg"]["data"], sample["gt_sem_seg"]["data"], 4, 255
        )
        for sample in samples
    ]
    totals = (sum(each) for each in zip(*areas, strict=True))
    wanted = IoUMetric.total_area_to_metrics(*totals)
    assert 0 < wanted["IoU"].min() < wanted["IoU"].max() < 1
    for name in ("IoU", "Acc"):
        assert columns[name] == pytest.approx((100 * wanted[name]).tolist(), rel=1e-5)
        assert np.mean(columns[name]) == pytest.approx(metrics["m" + name], abs=6e-3)
    assert sum(columns["% of pixels"]) == pytest.approx(100)


def test_every_pixel_that_counts_is_in_the_confusion_matrix() -> None:
    samples = seg_samples(3, 4)
    record, metrics = seg_record(samples, "wxyz")
    counts = np.array(record.summary()["confusion"]["counts"])
    labels = torch.cat([sample["gt_sem_seg"]["data"] for sample in samples])
    assert counts.sum(1).tolist() == [int((labels == i).sum()) for i in range(4)]
    assert 100 * counts.trace() / counts.sum() == pytest.approx(metrics["aAcc"], abs=6e-3)


def test_a_class_that_is_nowhere_has_no_iou() -> None:
    counts = np.zeros((4, 4), dtype=np.int64)
    counts[0, 0] = 5
    counts[0, 1] = 5
    assert table(counts)["rows"] == [[100, 50, 50, 100], [0, 0, None, 0], [0, None, None, None]]


# ---- records ----


def test_best_and_worst_are_at_the_ends_and_none_is_both() -> None:
    scores = np.random.RandomState(0).permutation(40) / 40
    chosen = best_and_worst(range(40), scores, [1] * 40)
    groups = {
        name: [scores[i] for group, i in chosen if group == name] for name in ("best", "worst")
    }
    assert groups == {
        "best": sorted(scores)[:-7:-1],
        "worst": sorted(scores)[:6],
    }
    for few in range(5):
        assert sorted(i for _, i in best_and_worst(range(few), [0] * few, [1] * few)) == [
            *range(few)
        ]


def test_of_equal_images_those_with_most_in_them_are_shown() -> None:
    chosen = best_and_worst(range(20), [1.0] * 10 + [0.0] * 10, [*range(10), *range(10)])
    assert [i for _, i in chosen] == [9, 8, 7, 6, 5, 4, 19, 18, 17, 16, 15, 14]


def test_a_config_that_only_formats_results_leaves_no_record(tmp_path: Path) -> None:
    loop = SimpleNamespace(
        evaluator=Evaluator(IoUMetric(format_only=True, output_dir=str(tmp_path)))
    )
    runner = SimpleNamespace(test_loop=loop)
    assert add_record(runner, Config({"default_scope": "mmseg"})) is None
    (tmp_path / FILE).write_text("{}")
    write_record(None, tmp_path)  # what was there is of another test
    assert not (tmp_path / FILE).exists()


# ---- work directories ----


def write_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    paths = [folder / f"{i}.jpg" for i in range(count)]
    for path in paths:
        cv2.imwrite(str(path), random.randint(0, 255, (96, 96, 3)))
    return paths


def write_log(work_dir: Path, run: str, lines: list[Any], resumed: bool = False) -> None:
    """The files that mmengine leaves of a run."""
    folder = work_dir / run / "vis_data"
    folder.mkdir(parents=True)
    (folder / "config.py").write_text(f"resume = {resumed}\n")
    (folder / "scalars.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (work_dir / run / f"{run}.log").write_text(
        f"INFO - \n{'-' * 60}\nSystem environment:\n    Python: 3.11 {EVIL}\n    OpenCV: 4.9\n"
        f"    PyTorch compiling details: PyTorch built with:\n  - GCC\n{'-' * 60}\n"
    )


def losses(*steps: int) -> list[dict[str, float]]:
    return [{"loss": 9 / step, "loss_cls": 4 / step, "lr": 0.1, "step": step} for step in steps]


def detection_test(work_dir: Path) -> None:
    """What a test of a detector leaves, through mmengine's own evaluator."""
    names = (EVIL, MATH, "_c")
    notes = [note(1, 0, 0, square(5, 5, 30)), note(2, 1, 1, square(40, 40, 30))]
    write_images(work_dir / "data/photos", 4)
    ann_file = coco_file(work_dir / "data/truth.json", 4, notes, names)
    evaluator = Evaluator(CocoMetric(ann_file, metric=["bbox", "segm"]))
    evaluator.dataset_meta = {"classes": names}
    where = {"data_prefix": {"img": str(work_dir / "data/photos")}, "test_mode": True}
    dataset = CocoDataset(ann_file=ann_file, metainfo={"classes": names}, pipeline=[], **where)
    loop = SimpleNamespace(evaluator=evaluator, dataloader=SimpleNamespace(dataset=dataset))
    cfg = Config({"default_scope": "mmdet", "test_evaluator": {"ann_file": ann_file}})
    record = add_record(SimpleNamespace(test_loop=loop), cfg)
    first = result(0, (0, 0.9, square(6, 6, 30)), (2, 0.8, square(50, 6, 30)), masks=True)
    samples = []
    for image, found in enumerate((first, *(result(i, masks=True) for i in (1, 2, 3)))):
        tensors = {key: torch.from_numpy(found[key]) for key in ("bboxes", "labels", "scores")}
        prediction = {**tensors, "masks": found["masks"]}
        samples.append({"img_id": image, "ori_shape": (96, 96), "pred_instances": prediction})
    finish(work_dir, evaluator.offline_evaluate(samples), record)


def segmentation_test(work_dir: Path) -> None:
    """What a test of a segmentor leaves."""
    paths = write_images(work_dir / "data/photos", 4)
    paths[0].unlink()  # a picture that is gone must not stop a test
    record, metrics = seg_record(seg_samples(4, 3, paths), [EVIL, MATH, "_c"])
    finish(work_dir, metrics, record)


def finish(work_dir: Path, metrics: dict[str, float], record: Any) -> None:
    facts = {"config": "config.py", "checkpoint": "last.pth"}
    numbers = {key: float(value) for key, value in metrics.items()}
    content = {**facts, "metrics": numbers, "seconds": 1.5}
    (work_dir / "metrics.json").write_text(json.dumps(content))
    write_record(record, work_dir, **facts)


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def work_dir(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory of a training and a test."""
    folder = tmp_path_factory.mktemp(task)
    scope = {"detection": "mmdet", "segmentation": "mmseg"}[task]
    (folder / "config.py").write_text(f"default_scope = '{scope}'\nname = '</pre>{EVIL}'\n")
    metrics = {"coco/bbox_mAP": 0.5, "coco/bbox_mAP_l": -1, "mIoU": 50}
    write_log(folder, "20260101_000000", [*losses(10, 20, 30), {**metrics, "step": 30}])
    {"detection": detection_test, "segmentation": segmentation_test}[task](folder)
    return folder


@pytest.fixture(scope="module")
def page(work_dir: Path) -> "Page":
    return Page.read(render(read_work_dir(work_dir)))


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails where tags do not match."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.source = ""
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []

    @classmethod
    def read(cls, source: str) -> "Page":
        page = cls()
        page.source = source
        page.feed(source)
        page.close()
        assert page.open == []
        return page

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((tuple(self.open), data.strip()))

    def inside(self, tag: str) -> list[str]:
        return [text for path, text in self.texts if path and path[-1] == tag]

    def text(self) -> str:
        return " ".join(text for path, text in self.texts if path[-1] not in ("script", "style"))

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.seen if name in attrs]


def test_every_section_is_there_once(page: Page) -> None:
    assert [attrs["id"] for tag, attrs in page.seen if tag == "section"] == SECTIONS
    assert max(Counter(page.attributes("id")).values()) == 1
    assert {*page.attributes("href")} == {"data:,", *(f"#{name}" for name in SECTIONS)}


def test_nothing_is_missing_after_a_training_and_a_test(page: Page, task: str) -> None:
    gone = [attrs for _, attrs in page.seen if attrs.get("class") == "missing"]
    assert len(gone) == (task == "segmentation")  # the picture that was removed
    assert ("could not be read when testing" in page.text()) == (task == "segmentation")


def test_the_page_fetches_nothing(page: Page) -> None:
    sources = [*page.attributes("src"), *page.attributes("href")]
    assert all(each.startswith(("data:", "#")) for each in sources)
    assert not re.search(r"url\(|@import", page.source)
    assert page.attributes("srcset") == []


def test_names_are_escaped_and_one_script_may_run(page: Page) -> None:
    scripts = page.inside("script")
    assert len(scripts) == len([tag for tag, _ in page.seen if tag == "script"]) == 1
    body = page.source.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    (policy,) = [text for text in page.attributes("content") if "script-src" in text]
    assert f"script-src 'sha256-{digest}'" in policy
    shown = page.inside("th") + page.inside("span") + page.inside("td")
    assert EVIL in shown
    assert f"name = '</pre>{EVIL}'" in page.inside("pre")[0]
    assert f"3.11 {EVIL}" in shown
    assert not [name for _, attrs in page.seen for name in attrs if name.startswith("on")]


def test_the_metrics_shown_are_those_of_metrics_json(page: Page, work_dir: Path) -> None:
    wanted = json.loads((work_dir / "metrics.json").read_text())["metrics"]
    shown = dict(zip(page.inside("dt"), page.inside("dd"), strict=True))
    assert shown.keys() == wanted.keys()
    for name, value in wanted.items():
        number = -1 if shown[name] == "\u2013" else float(shown[name])
        assert number == pytest.approx(value, abs=5e-5)


def test_the_last_row_of_the_classes_agrees_with_the_metrics(page: Page, work_dir: Path) -> None:
    wanted = json.loads((work_dir / "metrics.json").read_text())["metrics"]
    columns = json.loads((work_dir / FILE).read_text())["table"]["columns"]
    footer = [text for path, text in page.texts if "tfoot" in path][1:]
    shown = dict(zip(columns, map(float, footer), strict=True))
    names = {"box AP": "coco/bbox_mAP", "mask AP75": "coco/segm_mAP_75", "IoU": "mIoU"}
    pairs = [(shown[ours], wanted[theirs]) for ours, theirs in names.items() if ours in shown]
    assert pairs
    for ours, theirs in pairs:
        assert ours == pytest.approx(theirs, abs=6e-3 if "IoU" in shown else 6e-4)


def test_numbers_can_be_sorted(page: Page) -> None:
    cells = [attrs for tag, attrs in page.seen if tag == "td" and "data-value" in attrs]
    assert len(cells) >= 12
    for cell in cells:
        assert cell["class"] == "n"
        assert cell["data-value"] == "" or np.isfinite(float(cell["data-value"] or ""))


def test_pictures_are_the_best_and_the_worst(page: Page, work_dir: Path, task: str) -> None:
    pictures = json.loads((work_dir / FILE).read_text())["pictures"]
    assert [each["group"] for each in pictures] == {
        "detection": ["best", "worst"],  # two images have neither objects nor predictions
        "segmentation": ["best", "best", "worst", "worst"],
    }[task]
    assert pictures[0]["score"] > pictures[-1]["score"]
    readable = [each for each in pictures if Path(each["image"]).exists()]
    for each in readable:
        for side in ("truth", "prediction"):
            data = np.frombuffer(base64.b64decode(each[side]), np.uint8)
            assert max(cv2.imdecode(data, cv2.IMREAD_COLOR).shape) == 400
    jpegs = [each for each in page.attributes("src") if each.startswith("data:image/jpeg")]
    assert len(jpegs) == 2 * len(readable)


def test_charts_have_axes_and_names(page: Page, task: str) -> None:
    prefix = "data:image/svg+xml;base64,"
    charts = {
        attrs["alt"]: base64.b64decode(str(attrs["src"]).removeprefix(prefix)).decode()
        for tag, attrs in page.seen
        if tag == "img" and str(attrs["src"]).startswith(prefix)
    }
    assert {"Training loss", "Learning rate", "Validation: coco/bbox"} <= charts.keys()
    assert ("Box, IoU 0.5" in charts) == (task == "detection")
    assert "loss_cls" in charts["Training loss"]
    assert "coco/bbox_mAP_l" not in charts["Validation: coco/bbox"]  # -1 is no number
    for source in charts.values():
        assert "<text" in source and source.startswith("<svg")
    if task == "detection":
        assert MATH in charts["Box, IoU 0.5"] and EVIL not in charts["Box, IoU 0.5"]


def test_the_page_is_small_for_many_classes(tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(150)]
    record, metrics = seg_record(seg_samples(30, 150, [*write_images(tmp_path / "i", 30)]), names)
    finish(tmp_path, metrics, record)
    (tmp_path / "config.py").write_text("default_scope = 'mmseg'\n")
    source = render(read_work_dir(tmp_path))
    assert len(source) < 5e6
    assert "Confusion matrix" in Page.read(source).attributes("alt")


@pytest.mark.parametrize("scope", ["mmdet", "mmseg"])
def test_what_is_missing_is_said_with_the_command_that_makes_it(tmp_path: Path, scope: str) -> None:
    (tmp_path / "my config.py").write_text(f"default_scope = '{scope}'\n")
    (tmp_path / "epoch_1.pth").touch()
    page = Page.read(render(read_work_dir(tmp_path)))
    assert [attrs["id"] for tag, attrs in page.seen if tag == "section"] == SECTIONS
    commands = [text for text in page.inside("code") if text.startswith("python tools/")]
    where = f"'{tmp_path}/my config.py'"
    test = f"python tools/test.py {where} {tmp_path}/epoch_1.pth --work-dir {tmp_path}"
    train = f"python tools/train.py {where} --work-dir {tmp_path}"
    assert Counter(commands) == {test: 6, train: 1}


def test_metrics_without_their_record_are_told(work_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text((work_dir / "config.py").read_text())
    for name in ("metrics.json", FILE):
        (tmp_path / name).write_text((work_dir / name).read_text())
    assert "of another test" not in Page.read(render(read_work_dir(tmp_path))).text()
    other = (tmp_path / FILE).read_text().replace("last.pth", "first.pth", 1)
    (tmp_path / FILE).write_text(other)
    assert "of another test: first.pth" in Page.read(render(read_work_dir(tmp_path))).text()
    (tmp_path / FILE).unlink()
    assert "left no record of the pictures" in Page.read(render(read_work_dir(tmp_path))).text()


def test_metrics_keep_four_digits() -> None:
    rows = metric_rows({"a": 70.93000030517578, "b": 0.346, "c": -1.0, "d": float("nan"), "e": 0.0})
    assert dict(rows) == {"a": "70.93", "b": "0.346", "c": "\u2013", "d": "\u2013", "e": "0"}


# ---- curves ----


def test_a_resumed_training_is_one_curve(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", losses(1, 2, 3))  # another training
    write_log(
        tmp_path, "20260102_000000", [*losses(10, 20), {"mIoU": 1.0, "step": 20}, *losses(30)]
    )
    write_log(tmp_path, "20260103_000000", [{"mIoU": 2.0, "step": 30}])  # a test
    write_log(tmp_path, "20260104_000000", losses(30, 40), resumed=True)
    found = history(tmp_path)
    assert [line["step"] for line in found if "loss" in line] == [10, 20, 30, 40]
    assert [line["mIoU"] for line in found if "mIoU" in line] == [1.0]


def test_half_a_line_of_a_killed_run_is_left_out(tmp_path: Path) -> None:
    write_log(tmp_path, "20260101_000000", losses(10, 20))
    with (tmp_path / "20260101_000000/vis_data/scalars.json").open("a") as file:
        file.write('{"loss": 0.')
    assert [line["step"] for line in history(tmp_path)] == [10, 20]


# ---- the tool ----


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs the tool with some arguments; gives its exit code."""

    def call(*arguments: Any) -> Any:
        monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            run_tool(partial(cli.main, ROOT / "tools"))
        return done.value.code

    yield call


def test_the_tool_writes_one_file(tool: Any, work_dir: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "new/mine.html"
    assert tool(work_dir, "--out", out) == 0
    assert [path.name for path in out.parent.iterdir()] == ["mine.html"]
    assert out.stat().st_size < 5e6
    Page.read(out.read_text())
    assert f"report: {out}" in capsys.readouterr().out


def test_a_mistake_is_one_message(tool: Any, tmp_path: Path, capsys: Any) -> None:
    inner = tmp_path / "parent/run"
    inner.mkdir(parents=True)
    (inner / "config.py").write_text("default_scope = 'mmdet'\n")
    (inner / "test.log").touch()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.py").write_text("default_scope = 'mmdet'\n")
    (broken / FILE).write_text('{"version"')
    cases: list[tuple[list[Any], list[str]]] = [
        ([tmp_path / "nowhere"], ["nowhere", "no work directory"]),
        ([tmp_path / "parent"], ["no config", f"did you mean {inner}?", "--work-dir"]),
        ([inner, "--out", tmp_path], ["--out", "folder"]),
        ([broken], [FILE, "test again"]),
        ([inner, "--checkpoint", tmp_path / "no.pth"], ["--checkpoint", "no.pth"]),
    ]
    for arguments, wanted in cases:
        assert tool(*arguments) == 1
        said = capsys.readouterr().err
        assert said.count("error: ") == 1 and "Traceback" not in said
        assert all(words in said for words in wanted), said
    assert not list(tmp_path.rglob("*.html"))


def test_two_processes_record_each_image_once(tool: Any, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PYTHON": sys.executable,
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }

    data, out = tmp_path / "data", tmp_path / "out"
    size = ("--train", "1", "--val", "3", "--size", "96")  # 3: one process repeats an image
    make_demo_data.main([str(data), *size])
    config = str(ROOT / "configs/demo/agent_pvt_semantic_fpn_demo.py")
    with DefaultScope.overwrite_default_scope("mmseg"):
        model = MODELS.build(Config.fromfile(config).model)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "any.pth")
    flags = ("--data-root", str(data / "ade"), "--work-dir", str(out))
    command = ["bash", str(ROOT / "tools/dist_test.sh"), config, "any.pth", "2", *flags]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]

    found = json.loads((out / FILE).read_text())
    metrics = json.loads((out / "metrics.json").read_text())["metrics"]
    labels = [cv2.imread(str(path), 0) for path in (data / "ade/annotations/validation").iterdir()]
    pixels = np.bincount(np.concatenate(labels, axis=None), minlength=9)[1:]  # 0 is ignored
    counts = np.array(found["confusion"]["counts"])
    assert (found["images"], len(found["pictures"])) == (3, 3)
    assert counts.sum(1).tolist() == pixels.tolist()
    assert 100 * counts.trace() / counts.sum() == pytest.approx(metrics["aAcc"], abs=6e-3)
    assert tool(out) == 0
    assert f"{metrics['mIoU']:.2f}".rstrip("0") in (out / "report.html").read_text()
