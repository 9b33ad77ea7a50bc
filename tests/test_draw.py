"""Colours and drawing, which predictions, reports and contact sheets share."""

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmengine.evaluator import Evaluator
from mmseg.datasets import BaseSegDataset
from PIL import Image
from predictions import coco_file, note, seg_record, seg_samples, write_images

from mmdet_agent.data.check import CocoSet
from mmdet_agent.evaluation.record import DetectionRecord
from mmdet_agent.predict.instances import Instance
from mmdet_agent.predict.writer import DetectionWriter
from mmengine_agent.data.check import Place
from mmengine_agent.draw import class_colours, fit, paint_labels, write_text
from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.sliding_window import cover
from mmseg_agent.data.check import AdeSet
from mmseg_agent.data.label_maps import Pair
from mmseg_agent.predict.writer import SegmentationWriter

NAMES = ("first", "second", "third")
FIRST = class_colours(3)[0]
GREY = 100


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    assert cv2.imwrite(str(path), np.full((96, 96, 3), GREY, np.uint8))
    return path


def assert_has(image: np.ndarray, colour: tuple[int, ...]) -> None:
    """The colour fills some pixels of an image (H, W, 3) BGR, alone or half over grey."""
    ways = (colour[::-1], [GREY // 2 + c // 2 for c in colour[::-1]])
    assert any((image == way).all(-1).sum() > 50 for way in ways)


def decoded(picture: str) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(picture), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def predicted(task: str) -> np.ndarray:
    classes = Classes(NAMES, class_colours(3), (1, 2, 3))
    image = np.full((96, 96, 3), GREY, np.uint8)
    if task == "detection":
        found = Instance((10, 10, 80, 80), 0.9, 0, cover(96, 96, None, 0)[0])
        DetectionWriter(classes, 0.3).draw(image, [found])
    else:
        SegmentationWriter(classes, 0.5).draw(image, np.zeros((96, 96), np.uint16))
    return image


def on_a_sheet(task: str, photo: Path) -> np.ndarray:
    place = Place("photos", photo.parent, photo.parent)
    if task == "segmentation":
        label = photo.with_name("label.png")
        Image.fromarray(np.full((96, 96), 1, np.uint8)).save(label)
        return AdeSet(place, pairs=[Pair("photo", photo, label)]).draw(0)[0]
    content = {
        "images": [{"id": 1, "file_name": photo.name, "width": 96, "height": 96}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 9, "bbox": [10, 10, 70, 70]}],
        "categories": [{"id": 9 - i, "name": name} for i, name in enumerate(NAMES)],
    }
    return CocoSet(place, content=content).draw(0)[0]


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_class_has_one_colour_everywhere(task: str, photo: Path) -> None:
    assert_has(predicted(task), FIRST)
    assert_has(on_a_sheet(task, photo), FIRST)


def test_a_report_has_the_same_colours(photo: Path, tmp_path: Path) -> None:
    notes = [note(1, 0, 0, [10, 10, 80, 80])]
    metric = CocoMetric(coco_file(tmp_path / "truth.json", 1, notes))
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    evaluator = Evaluator([metric, DetectionRecord(metric)])
    evaluator.dataset_meta = metric.dataset_meta
    boxes = {"bboxes": torch.tensor([[10.0, 10, 80, 80]]), "scores": torch.ones(1)}
    prediction = {**boxes, "labels": torch.zeros(1, dtype=torch.long)}
    sample = {"img_id": 0, "img_path": str(photo), "ori_shape": (96, 96)}
    evaluator.offline_evaluate([{**sample, "pred_instances": prediction}])
    (picture,) = evaluator.metrics[1].summary()["pictures"]
    for side in ("truth", "prediction"):
        reported = decoded(picture[side])
        near = abs(reported.astype(int) - FIRST[::-1]).max(-1) < 40  # it is a JPEG
        assert near.sum() > 500
    record, _ = seg_record(seg_samples(2, 3, write_images(tmp_path / "i", 2)), NAMES, palette=None)
    assert record.summary()["legend"][0] == ("first", "#{:02x}{:02x}{:02x}".format(*FIRST))


def test_a_data_set_s_own_palette_is_kept() -> None:
    own = [[i, 2 * i, 3] for i in range(30)]
    assert class_colours(30, [None, own]) == tuple(map(tuple, own))


def test_colours_that_frameworks_make_up_are_no_palette() -> None:
    mmseg = BaseSegDataset(metainfo={"classes": NAMES}, lazy_init=True, test_mode=True)
    mmdet = CocoDataset(metainfo={"classes": NAMES}, lazy_init=True, test_mode=True)
    for dataset in (mmseg, mmdet):
        assert len(dataset.metainfo["palette"]) >= 3
        assert class_colours(3, [dataset.metainfo["palette"]]) == class_colours(3)


@pytest.mark.parametrize("count", [0, 1, 10, 20, 21, 1300])
def test_every_class_has_a_colour_and_the_first_twenty_their_own(count: int) -> None:
    colours = class_colours(count)
    assert len(colours) == count and colours == class_colours(1300)[:count]
    assert len({*colours[:20]}) == min(count, 20)


def test_labels_beyond_the_classes_are_left_clear() -> None:
    image = np.full((600, 2, 3), GREY, np.uint8)
    labels = np.zeros((600, 2), np.uint16)
    labels[:, 1] = 65535
    paint_labels(image, labels, class_colours(3))
    assert (image[:, 1] == GREY).all() and (image[:, 0] != GREY).any(-1).all()


@pytest.mark.parametrize("place", [(-50, -50), (90, 90), (3, 3)])
@pytest.mark.parametrize("text", ["é $x{$", "", "much longer than the image is wide"])
def test_text_is_written_within_the_image(place: tuple[int, int], text: str) -> None:
    image = np.full((40, 60, 3), 255, np.uint8)
    write_text(image, text, *place, (0, 0, 0))
    assert (image < 255).any() or not text


def test_pictures_keep_their_shape_when_they_are_resized() -> None:
    for shape in ((10, 1000, 3), (1000, 10, 3), (1, 1, 3), (300, 400, 3)):
        height, width = fit(np.zeros(shape, np.uint8), 200, 100).shape[:2]
        assert (width == 200 and height <= 100) or (height == 100 and width <= 200)
