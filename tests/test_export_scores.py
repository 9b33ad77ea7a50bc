"""Exported files are tested on a data set as checkpoints are."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from small_exports import BOXES, LABELS, write_detector, write_segmentor
from tool_runs import ADE_DEMO, COCO_DEMO, CONFIGS, output, python

from mmengine_agent.errors import UserError
from mmengine_agent.export.scores import require_exported, score
from mmengine_agent.run.setup import read_config
from mmengine_agent.task import task_of


def config(name: str, root: Path) -> Config:
    """A demo config for generated data."""
    cfg = read_config(str(CONFIGS / name))
    task_of(cfg)
    loader = cfg.test_dataloader
    loader.dataset.data_root, loader.num_workers, loader.persistent_workers = str(root), 0, False
    return cfg


def test_a_segmentors_file_is_tested_by_the_tool(data: Path, tmp_path: Path) -> None:
    classes = Config.fromfile(CONFIGS / ADE_DEMO).classes
    model = write_segmentor(tmp_path / "model.onnx", classes=json.dumps(classes))
    flags = ("--data-root", str(data / "ade"), "--work-dir", "run")
    said = output(python("test.py", str(CONFIGS / ADE_DEMO), str(model), *flags, cwd=tmp_path))
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())["metrics"]
    right = total = 0
    for path in (data / "ade/images/validation").iterdir():
        truth = np.asarray(Image.open(data / f"ade/annotations/validation/{path.stem}.png"))
        found = np.asarray(Image.open(path)).argmax(-1) + 1
        right, total = right + (found == truth).sum(), total + (truth > 0).sum()
    assert metrics["aAcc"] == pytest.approx(100 * right / total, abs=0.01) and "mIoU" in said
    assert (tmp_path / "run/evaluation.json").is_file()


def test_a_detectors_file_gives_samples_that_are_evaluated(data: Path, tmp_path: Path) -> None:
    cfg = config(COCO_DEMO, data / "coco")
    annotations = json.loads((data / "coco/annotations/instances_val2017.json").read_text())
    annotations["annotations"] = [truth(image, LABELS[0]) for image in annotations["images"]]
    (tmp_path / "truth.json").write_text(json.dumps(annotations))
    cfg.test_dataloader.dataset.ann_file = str(tmp_path / "truth.json")
    cfg.test_evaluator.ann_file = str(tmp_path / "truth.json")
    metrics = score(cfg, write_detector(tmp_path / "model.onnx", classes=json.dumps(cfg.classes)))
    assert metrics["coco/bbox_mAP"] == metrics["coco/segm_mAP"] == 1


def truth(image: dict[str, Any], label: int) -> dict[str, Any]:
    """What ``write_detector`` finds first in an image, as COCO has it."""
    left, top, right, bottom = BOXES[0]
    width, half = image["width"], image["height"] / 2
    return {
        "id": image["id"],
        "image_id": image["id"],
        "category_id": label + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": width * half,
        "segmentation": [[0, 0, width, 0, width, half, 0, half]],
        "iscrowd": 0,
    }


@pytest.mark.parametrize(
    ("given", "classes", "wanted"),
    [
        ({"tta": True}, 8, "--tta"),
        ({"image_size": [64, 64]}, 8, "--image-size"),
        ({"launcher": "pytorch"}, 8, "--launcher"),
        ({}, 3, "3 classes, and the config 8"),
    ],
)
def test_what_a_file_cannot_do_is_said(
    given: dict[str, Any], classes: int, wanted: str, tmp_path: Path
) -> None:
    names = json.dumps([f"class {number}" for number in range(classes)])
    file = write_segmentor(tmp_path / "model.onnx", classes=names)
    usual = {"tta": False, "image_size": None, "launcher": "none"}
    flags = Namespace(checkpoint=str(file), **{**usual, **given})
    with pytest.raises(UserError, match=wanted):
        require_exported(Config.fromfile(CONFIGS / ADE_DEMO), flags)
