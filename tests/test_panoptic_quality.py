"""Panoptic COCO without panopticapi: its segments are read, checked, scored and recorded."""

import json
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation.functional import panoptic_utils
from mmdet.registry import METRICS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from agent_toolkit.api import Predictor
from mmdet_agent.data.segments import segment_ids
from mmdet_agent.evaluation.panoptic import PanopticMetric
from mmdet_agent.evaluation.panoptic_record import PanopticRecord
from mmdet_agent.task import TASK
from mmengine_agent.errors import Problem

NAMES, THINGS = ("cat", "dog", "grass", "sky"), 2
META = {"classes": NAMES, "thing_classes": NAMES[:THINGS], "stuff_classes": NAMES[THINGS:]}
IDS = (17, 18, 193, 187)  # categories
HEIGHT, WIDTH, IMAGES = 30, 40, 3


def blocks(rng: np.random.Generator, count: int) -> np.ndarray:
    """A map (H, W) of ``count`` rectangles over each other; 0 is of none."""
    found = np.zeros((HEIGHT, WIDTH), int)
    for number in range(1, count + 1):
        top, left = rng.integers(0, HEIGHT - 8), rng.integers(0, WIDTH - 8)
        found[top : top + rng.integers(6, 20), left : left + rng.integers(6, 25)] = number
    return found


def save_png(path: Path, ids: np.ndarray) -> None:
    bgr = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1)
    cv2.imwrite(str(path), bgr.astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of random segments, of which one in five is a crowd of things."""
    folder, rng = tmp_path_factory.mktemp("panoptic"), np.random.default_rng(0)
    (folder / "val").mkdir()
    (folder / "photos").mkdir()
    images, notes = [], []
    for image in range(1, IMAGES + 1):
        places, segments = blocks(rng, 6), []
        ids = np.where(places, 65_000 + 300 * places, 0)  # in all three colours
        for number in np.unique(ids[ids > 0]).tolist():
            label = int(rng.integers(len(NAMES)))
            rows, columns = np.nonzero(ids == number)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            entry = {"id": number, "category_id": IDS[label], "area": len(rows)}
            crowd = int(label < THINGS and rng.random() < 0.2)
            segments.append({**entry, "bbox": [*map(int, box)], "iscrowd": crowd})
        save_png(folder / f"val/{image}.png", ids)
        cv2.imwrite(str(folder / f"photos/{image}.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        entry = {"id": image, "file_name": f"{image}.jpg", "width": WIDTH, "height": HEIGHT}
        images.append(entry)
        notes.append({"image_id": image, "file_name": f"{image}.png", "segments_info": segments})
    categories = [
        {"id": number, "name": name, "isthing": int(place < THINGS)}
        for place, (number, name) in enumerate(zip(IDS, NAMES, strict=True))
    ]
    whole = {"images": images, "annotations": notes, "categories": categories}
    (folder / "val.json").write_text(json.dumps(whole))
    return folder


def content_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "val.json").read_text())


def predictions(folder: Path) -> list[dict[str, Any]]:
    """What a model may say: the truth, grown by a pixel, with some labels drawn anew."""
    rng, samples = np.random.default_rng(1), []
    for note in content_of(folder)["annotations"]:
        image = cv2.imread(str(folder / f"val/{note['file_name']}"))[..., ::-1]
        ids = segment_ids(cv2.dilate(image, np.ones((2, 3))))
        found = np.full(ids.shape, len(NAMES))  # mmdet's label of no class
        for number, segment in enumerate(note["segments_info"], 1):
            label = IDS.index(segment["category_id"])
            label = label if rng.random() < 0.7 else int(rng.integers(len(NAMES)))
            found[ids == segment["id"]] = label + 1000 * number
        found[:3, :9] = 1 + 1000 * 50
        pixels = {"sem_seg": torch.tensor(found)[None]}
        path = str(folder / f"photos/{note['image_id']}.jpg")
        samples.append({"img_id": note["image_id"], "img_path": path, "pred_panoptic_seg": pixels})
    return samples


def metric_of(folder: Path) -> PanopticMetric:
    metric = PanopticMetric(str(folder / "val.json"), str(folder / "val"))
    metric.dataset_meta = META
    return metric


class Counts(defaultdict[int, SimpleNamespace]):
    """What mmdet takes from panopticapi: sums by category."""

    def __init__(self) -> None:
        super().__init__(lambda: SimpleNamespace(iou=0.0, tp=0, fp=0, fn=0))


def test_segments_are_counted_as_mmdet_counts_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmdet has COCO's counting; what it takes from panopticapi is a sum and the ids of colours."""
    monkeypatch.setattr(panoptic_utils, "PQStat", Counts)
    monkeypatch.setattr(panoptic_utils, "rgb2id", segment_ids)
    content, samples, pairs = content_of(folder), predictions(folder), []
    for note, sample in zip(content["annotations"], samples, strict=True):
        ids = sample["pred_panoptic_seg"]["sem_seg"][0].numpy()
        save_png(tmp_path / note["file_name"], np.where(ids == len(NAMES), 0, ids))
        found = [int(each) for each in np.unique(ids) if each != len(NAMES)]
        segments = [{"id": each, "category_id": IDS[each % 1000]} for each in found]
        pairs.append((note, {"file_name": note["file_name"], "segments_info": segments}))
    wanted = panoptic_utils.pq_compute_single_core(
        0,
        pairs,
        str(folder / "val"),
        str(tmp_path),
        {each["id"]: each for each in content["categories"]},
    )
    metric = metric_of(folder)
    metric.process(None, samples)
    for label, row in enumerate(np.sum(metric.results, 0)):
        each = wanted[IDS[label]]
        np.testing.assert_allclose(row, [each.iou, each.tp, each.fp, each.fn], rtol=1e-12)
    assert (np.sum(metric.results, (0, 1)) > 0).all()  # all of it occurred


def test_quality_is_the_mean_over_the_classes_that_are_there(folder: Path) -> None:
    metric = metric_of(folder)
    rows = np.array([[1.5, 2, 1, 1], [0, 0, 0, 0], [0, 0, 0, 2], [0.9, 1, 0, 0]])
    found = metric.compute_metrics([rows / 2, rows / 2])
    assert found["PQ"] == pytest.approx(100 * (1.5 / 3 + 0 + 0.9) / 3)
    assert found["PQ_th"] == pytest.approx(50) and found["RQ_th"] == pytest.approx(100 * 2 / 3)
    assert found["SQ_st"] == pytest.approx(45)
    things = metric.compute_metrics([rows * [[1], [0], [0], [0]]])
    assert "PQ_st" not in things  # of classes that are neither there nor found


def test_a_perfect_prediction_has_all_of_it_and_the_record_shows_it(folder: Path) -> None:
    samples = []
    for note, sample in zip(content_of(folder)["annotations"], predictions(folder), strict=True):
        ids = segment_ids(cv2.imread(str(folder / f"val/{note['file_name']}"))[..., ::-1])
        found = np.full(ids.shape, 255)
        for number, each in enumerate(note["segments_info"], 1):
            if not each["iscrowd"]:
                found[ids == each["id"]] = IDS.index(each["category_id"]) + 1000 * number
        sample["pred_panoptic_seg"]["sem_seg"] = torch.tensor(found)[None]
        samples.append(sample)
    metric = metric_of(folder)
    assert TASK.record(metric) is PanopticRecord
    record = PanopticRecord(metric)
    for each in (metric, record):
        each.process(None, samples)
    assert metric.compute_metrics(metric.results)["PQ"] == pytest.approx(100)
    record.compute_metrics(record.results)
    summary = record.summary()
    segments = [s for n in content_of(folder)["annotations"] for s in n["segments_info"]]
    counts = np.array(summary["confusion"]["counts"])
    assert counts.trace() == counts.sum() == sum(not each["iscrowd"] for each in segments)
    assert {row[1] for row in summary["table"]["rows"]} <= {100.0, None}
    assert len(summary["pictures"]) == IMAGES and "truth" in summary["pictures"][0]
    json.dumps(summary)


def test_mmdets_names_stand_for_ours(folder: Path) -> None:
    init_default_scope("mmdet")
    load = TRANSFORMS.build({"type": "LoadPanopticAnnotations", "with_bbox": False})
    segments = content_of(folder)["annotations"][0]["segments_info"]
    infos = [
        {
            "id": each["id"],
            "category": IDS.index(each["category_id"]),
            "is_thing": each["category_id"] in IDS[:THINGS],
        }
        for each in segments
    ]
    sample = {"seg_map_path": str(folder / "val/1.png"), "ori_shape": (HEIGHT, WIDTH)}
    loaded = load({**sample, "segments_info": infos, "instances": []})
    assert loaded["gt_masks"].masks.shape[0] == sum(each["is_thing"] for each in infos)
    for info, segment in zip(infos, segments, strict=True):
        assert (loaded["gt_seg_map"] == info["category"]).sum() >= segment["area"]
    metric = {"type": "CocoPanopticMetric", "ann_file": str(folder / "val.json")}
    assert isinstance(METRICS.build({**metric, "seg_prefix": str(folder)}), PanopticMetric)
    with pytest.raises(ImportError, match=r"pip install git\+https://github\.com/cocodataset"):
        METRICS.build({**metric, "seg_prefix": str(folder), "outfile_prefix": "x"})


# ---- checks before a run


def problems(folder: Path, content: dict[str, Any]) -> list[Problem]:
    (folder / "val.json").write_text(json.dumps(content))
    dataset = {
        "type": "CocoPanopticDataset",
        "data_root": str(folder),
        "ann_file": "val.json",
        "data_prefix": {"img": "", "seg": "val"},
        "metainfo": META,
    }
    cfg = Config({"default_scope": "mmdet", "val_dataloader": {"dataset": dataset}, "model": {}})
    return [*TASK.data_problems(cfg, ("val",))]


def drop(content: dict[str, Any], key: str) -> None:
    del content["annotations"][1]["segments_info"][0][key]


FAULTS = {
    "no isthing": (
        lambda content: content["categories"][2].pop("isthing"),
        r"categories\[2\] \(grass\): isthing must be 1 \(a thing\) or 0",
    ),
    "instances": (
        lambda content: content["annotations"][1].pop("segments_info"),
        r"annotations\[1\] needs image_id and a list segments_info",
    ),
    "no box": (lambda content: drop(content, "bbox"), r"\[1\].segments_info\[0\] has no bbox"),
    "no crowd": (lambda content: drop(content, "iscrowd"), r"info\[0\] has no iscrowd"),
    "other class": (
        lambda content: content["annotations"][0]["segments_info"][0].update(category_id=5),
        r"annotations\[0\].segments_info\[0\]: there is no category 5",
    ),
    "other ids": (
        lambda content: [
            each.update(id=number)
            for number, each in enumerate(content["annotations"][0]["segments_info"])
        ],
        r"1\.png has the ids 65600, .* lists 0, .*: an id is R \+ 256 G \+ 65536 B",
    ),
    "no files": (
        lambda content: [each.update(file_name="a/b.jpg") for each in content["images"][:1]],
        r"lacks 1 of the 3 PNGs of .*val\.json that were looked for, such as .*a/b\.png",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_training_would_end_at_is_said_before(
    name: str, folder: Path, tmp_path: Path
) -> None:
    for path in (*folder.glob("val/*"), *folder.glob("photos/*")):
        target = tmp_path / ("val" if path.suffix == ".png" else "") / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    content = content_of(folder)
    assert problems(tmp_path, content) == []
    change, message = FAULTS[name]
    change(content)
    (found,) = [each for each in problems(tmp_path, content) if each.fatal]
    assert re.search(message, found.text), found.text


# ---- the Python API


class Known(Predictor):
    """A predictor of one known map."""

    def __init__(self, ids: np.ndarray) -> None:
        self.names = NAMES
        pixels = PixelData(sem_seg=torch.tensor(ids)[None])
        sample = DetDataSample(pred_panoptic_seg=pixels, pred_instances=InstanceData())
        self._predict = lambda images: [sample]


def test_a_panoptic_prediction_is_its_segments() -> None:
    ids = np.full((6, 8), len(NAMES))
    ids[:3] = 2
    ids[1:3, 2:5] = 0 + 1000 * 1
    found = Known(ids)(np.zeros((6, 8, 3), np.uint8))
    assert found.labels.tolist() == [2, 0] and found.scores is None
    assert found.boxes.tolist() == [[0, 0, 8, 3], [2, 1, 5, 3]]
    assert found.masks.sum((1, 2)).tolist() == [18, 6]
    assert found.label_map[2, 3] == 0 and found.label_map[0, 0] == 2 and found.label_map[5, 0] == -1
    arguments = found.to_supervision()
    assert arguments["class_id"].tolist() == [2, 0] and arguments["mask"].dtype == bool
