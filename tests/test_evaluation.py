"""What testing records: scores by class, confusions, and which images are shown."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmseg.evaluation import IoUMetric
from predictions import coco_file, evaluated, note, result, seg_record, seg_samples, square

from mmengine_agent.report.record import (
    FILE,
    Candidate,
    add_record,
    best_and_worst,
    write_record,
)
from mmseg_agent.evaluation.record import table

# ---- detection ----


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
    evaluation, wanted = evaluated(ann_file, "abc", results, "bbox", "segm")
    found = evaluation.table()
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
    found = evaluated(ann_file, "abc", results, "bbox")[0]
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
    found = evaluated(ann_file, "abc", [first, crowd], "bbox")[0]
    assert found.confusion() == [[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 1, 0]]
    assert found.count(0) == (1, 3, 3)
    assert found.count(1) == (0, 0, 0)  # the crowd alone says nothing of an image


def test_every_object_and_every_sure_box_is_in_the_confusion_matrix(
    scenes: tuple[str, list[Any]],
) -> None:
    ann_file, results = scenes
    found = evaluated(ann_file, "abc", results, "bbox")[0]
    counts = np.array(found.confusion())
    assert counts.sum(1)[:-1].tolist() == [row[0] for row in found.table()["rows"]]
    outside = [each for each in results if each["img_id"]]  # the crowd of image 0 takes some
    sure = sum(int((each["scores"] >= 0.3).sum()) for each in outside)
    assert sure <= counts[:, :-1].sum() <= sure + len(results[0]["scores"])


def test_objects_of_other_classes_do_not_count(tmp_path: Path) -> None:
    spots = [square(5, 5, 20), square(40, 5, 20)]
    notes = [note(1, 0, 0, spots[0]), note(2, 0, 2, spots[1])]
    ann_file = coco_file(tmp_path / "truth.json", 1, notes)
    found = [result(0, (0, 0.9, spots[0]), (1, 0.8, spots[1]))]
    content = evaluated(ann_file, "ab", found, "bbox")[0].content()  # without c
    assert [row[0] for row in content["table"]["rows"]] == [1, 0]
    assert content["confusion"]["counts"] == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_no_prediction_at_all_is_a_result(tmp_path: Path) -> None:
    ann_file = coco_file(tmp_path / "truth.json", 1, [note(1, 0, 1, square(5, 5, 20))])
    found = evaluated(ann_file, "abc", [result(0, masks=True)], "bbox", "segm")[0].content()
    assert [row[1] for row in found["table"]["rows"]] == [None, 0, None]
    assert found["confusion"]["counts"][1] == [0, 0, 0, 1]


# ---- segmentation ----


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


def candidates(*pairs: tuple[float, int]) -> list[Candidate]:
    """Candidates of some scores and sizes; the content is their number."""
    return [Candidate("", i, score, size, "") for i, (score, size) in enumerate(pairs)]


def test_best_and_worst_are_at_the_ends_and_none_is_both() -> None:
    scores = np.random.RandomState(0).permutation(40) / 40
    chosen = best_and_worst(candidates(*((score, 1) for score in scores)))
    groups = {name: [e.score for group, e in chosen if group == name] for name in ("best", "worst")}
    assert groups == {"best": sorted(scores)[:-7:-1], "worst": sorted(scores)[:6]}
    for few in range(5):
        shown = best_and_worst(candidates(*[(0, 1)] * few))
        assert sorted(each.content for _, each in shown) == [*range(few)]


def test_of_equal_images_those_with_most_in_them_are_shown() -> None:
    sizes = range(10)
    chosen = best_and_worst(candidates(*((1, n) for n in sizes), *((0, n) for n in sizes)))
    wanted = [9, 8, 7, 6, 5, 4, 19, 18, 17, 16, 15, 14]
    assert [each.content for _, each in chosen] == wanted


def test_a_config_that_only_formats_results_leaves_no_record(tmp_path: Path) -> None:
    loop = SimpleNamespace(
        evaluator=Evaluator(IoUMetric(format_only=True, output_dir=str(tmp_path)))
    )
    runner = SimpleNamespace(test_loop=loop)
    assert add_record(runner, Config({"default_scope": "mmseg"})) is None
    (tmp_path / FILE).write_text("{}")
    write_record(None, tmp_path)  # what was there is of another test
    assert not (tmp_path / FILE).exists()
