"""Sets of other classes, and colour-coded ones, from training to prediction by the tools."""

import json
from pathlib import Path

import annotation_copies as copies
import numpy as np
import pytest
from annotation_copies import BOXES
from helpers import SMALL
from mmengine.config import Config
from PIL import Image
from tool_runs import ADE_DEMO, COCO_DEMO, CONFIGS, logged, output, python

from mmengine_agent.data.user_data import DataFlags, point_at
from mmengine_agent.task import task_of

VOC = f"""
_base_ = {str(CONFIGS / COCO_DEMO)!r}
model = dict(
    backbone=dict(_delete_=True, type='AgentPVT', arch={SMALL!r}),
    neck=dict(in_channels={[*SMALL["embed_dims"]]!r}),
    roi_head=dict(mask_roi_extractor=None, mask_head=None))
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
voc = dict(type='VOCDataset', data_root='data/VOCdevkit',
    data_prefix=dict(sub_data_root='VOC2007/'), ann_file='VOC2007/ImageSets/Main/train.txt',
    pipeline=[*load, dict(type='Resize', scale=(99, 99)), dict(type='PackDetInputs')])
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(**loader, batch_size=2, dataset=dict(
    _delete_=True, type='ConcatDataset', ignore_keys=['dataset_type'], datasets=[voc]))
val_dataloader = dict(**loader, dataset=dict(_delete_=True, **voc, test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP', eval_mode='11points')
test_evaluator = val_evaluator
"""


def test_a_pascal_voc_config_trains_and_tests(tmp_path: Path) -> None:
    """Its metric ends worker processes by SIGTERM, which a training takes for a wish to stop."""
    copies.write_voc(tmp_path / "set/VOC2007", BOXES)
    config = tmp_path / "voc.py"
    config.write_text(VOC)
    flags = ["--data-root", str(tmp_path / "set"), "--work-dir", str(tmp_path / "w")]
    flags += ["--epochs", "1", "--early-stop", "1", "--image-size", "64", "64"]
    flags += ["--classes", *copies.NAMES]
    output(python("train.py", str(config), *flags, cwd=tmp_path))
    trained = Config.fromfile(tmp_path / "w/voc.py")
    (hook,) = (h for h in trained.custom_hooks if h.type == "EarlyStoppingHook")
    assert hook.monitor == "pascal_voc/mAP"
    checkpoint = str(tmp_path / "w/epoch_1.pth")
    output(python("test.py", str(tmp_path / "w/voc.py"), checkpoint, cwd=tmp_path))
    assert "pascal_voc/mAP" in json.loads((tmp_path / "w/metrics.json").read_text())["metrics"]


def test_a_colour_coded_set_trains_and_predicts(tmp_path: Path) -> None:
    colours = np.array([(128, 64, 128), (70, 130, 180), (0, 0, 0)], np.uint8)
    places = np.tile(np.arange(96) // 8 % 3, (64, 1))
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.fromarray(colours[places] // 2).save(tmp_path / "images/a.png")
    Image.fromarray(colours[places]).save(tmp_path / "labels/a.png")
    (tmp_path / "palette.txt").write_text("road 128 64 128\nsky 70 130 180\nignore 0 0 0\n")
    config = tmp_path / "small.py"
    config.write_text(
        f"_base_ = {str(CONFIGS / ADE_DEMO)!r}\nmodel = dict(\n"
        f"    backbone=dict(_delete_=True, type='AgentPVT', arch={SMALL!r}),\n"
        f"    neck=dict(in_channels={[*SMALL['embed_dims']]!r}))\n"
    )
    both = ("--train-images", "images", "--val-images", "images")
    both += ("--train-ann", "labels", "--val-ann", "labels")
    flags = ["--data-root", str(tmp_path), *both, "--palette", str(tmp_path / "palette.txt")]
    flags += ["--work-dir", str(tmp_path / "w"), "--iters", "2", "--workers", "0"]
    assert "2 classes: road, sky" in output(python("train.py", str(config), *flags, cwd=tmp_path))
    assert len(logged(tmp_path / "w")) == 2
    run = [str(tmp_path / "w/small.py"), str(tmp_path / "w/iter_2.pth")]
    where = [str(tmp_path / "images"), "--out", str(tmp_path / "p"), "--device", "cpu"]
    output(python("predict.py", *run, *where, cwd=tmp_path))
    labels = np.asarray(Image.open(tmp_path / "p/labels/a.png"))
    assert labels.shape == (64, 96) and set(np.unique(labels)) <= {0, 1}
    drawn = (tmp_path / "p").rglob("legend*")
    assert [*drawn]


# ---- configs of other classes, pointed at a folder ----


def detector(dataset: dict, evaluator: dict) -> Config:
    split = {"dataset": {"data_root": "data/old/", "ann_file": "a.json", **dataset}}
    parts = {f"{name}_dataloader": split for name in ("train", "val", "test")}
    more = {"val_evaluator": evaluator, "test_evaluator": evaluator, "model": {}}
    return Config({**parts, **more, "default_scope": "mmdet"})


def test_prefixes_and_evaluators_of_panoptic_sets_move_along(tmp_path: Path) -> None:
    prefix = {"img": "train2017/", "seg": "annotations/panoptic/"}
    cfg = detector(
        {"type": "CocoPanopticDataset", "data_prefix": prefix},
        {"type": "CocoPanopticMetric", "ann_file": "data/old/a.json", "seg_prefix": "data/old/p/"},
    )
    (tmp_path / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert point_at(cfg, DataFlags(str(tmp_path), train_images="photos")) is None
    assert cfg.train_dataloader.dataset.data_prefix == {**prefix, "img": "photos"}
    assert cfg.val_evaluator.ann_file == str(tmp_path / "a.json")
    assert cfg.val_evaluator.seg_prefix == str(tmp_path / "p")


SEGMENTORS = {
    "CityscapesDataset": ("a_leftImg8bit.png", "a_gtFine_labelTrainIds.png", False),
    "LoveDADataset": ("a.png", "a.png", True),
    "ADE20KDataset": ("a.jpg", "a.png", True),
}


@pytest.mark.parametrize("kind", SEGMENTORS)
@pytest.mark.parametrize("names", [None, ("road", "sky")])
def test_endings_and_first_label_are_those_of_the_class_unless_the_images_say_otherwise(
    kind: str, names: tuple[str, ...] | None, tmp_path: Path
) -> None:
    image, label, from_one = SEGMENTORS[kind]
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "images" / image)
    own = image.replace(".png", ".png").replace(".jpg", ".png") if names else label
    Image.fromarray(np.ones((4, 6), np.uint8)).save(tmp_path / "labels" / own)
    split = {"dataset": {"type": kind, "data_prefix": {}, "pipeline": []}}
    cfg = Config({"train_dataloader": split, "model": {}, "default_scope": "mmseg"})
    flags = DataFlags(str(tmp_path), "labels", train_images="images", classes=names)
    point_at(cfg, flags)
    assert [*task_of(cfg).data_problems(cfg, ("train",))] == []
    assert ("custom_imports" in cfg) == bool(names)  # stock tools find our class
    dataset = cfg.train_dataloader.dataset
    assert dataset.get("reduce_zero_label", from_one) == from_one
