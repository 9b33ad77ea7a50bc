"""Detectors as they are exported: the objects that mmdet's own prediction finds."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest
import torch
from mmcv.ops import nms as mmcv_nms
from mmcv.ops import roi_align as mmcv_roi_align
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.structures import InstanceData
from narrow_models import photo
from query_models import build, narrow_config
from torch import Tensor, nn

from mmdet_agent.export import HEADS, whole
from mmdet_agent.export.compare import compare
from mmdet_agent.export.paste import paste
from mmdet_agent.export.select import iou_threshold
from mmengine_agent.errors import UserError
from mmengine_agent.export import formats
from mmengine_agent.export.check import DifferenceError
from mmengine_agent.export.modules import Prepare
from mmengine_agent.export.operators import nms, roi_align
from mmengine_agent.export.resize import Resize

STOCK = {
    "FCOS": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco",
    "GFL": "gfl/gfl_r50_fpn_1x_coco",
    "RTMDet-Ins": "rtmdet/rtmdet-ins_tiny_8xb32-300e_coco",
    "Cascade Mask R-CNN": "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco",
}
SIZE = (2, 70, 131)


def eager(made: Any) -> Callable[..., Any]:
    """A file that is no file: the module itself, with other values."""

    def load(values: dict[str, float]) -> Any:
        copy = deepcopy(made)
        for name, value in values.items():
            copy.get_buffer(name).fill_(value)
        return copy

    return load


# --- whole detectors


@pytest.mark.parametrize("name", ["FCOS", "Cascade Mask R-CNN"])
def test_objects_are_those_of_mmdet(name: str) -> None:
    cfg = narrow_config(f"mmdet::{STOCK[name]}")
    if "rpn" in cfg.model.test_cfg:
        cfg.model.test_cfg.rpn.update(nms_pre=60, max_per_img=40)
    model = build(cfg)
    made = whole(deepcopy(model), Prepare(cfg.model.data_preprocessor, "rgb"))
    said = made.check(model, eager(made), photo(*SIZE), 1e-4)
    assert int(said.split(" objects")[0]) >= 20


def test_pictures_that_are_resized_inside_give_objects_in_their_own_pixels() -> None:
    cfg = narrow_config(f"mmdet::{STOCK['RTMDet-Ins']}")
    model = build(cfg)
    made = whole(deepcopy(model), Prepare(cfg.model.data_preprocessor, "rgb"))
    made.resize = Resize((192, 128), keep_ratio=True)
    picture = photo(1, 60, 70).permute(0, 2, 3, 1).byte()
    assert "objects" in made.check(model, eager(made), picture, 1e-4)
    found = made(picture)
    assert found["masks"].shape[2:] == (60, 70) and 50 < found["boxes"].max() <= 70


@torch.no_grad()
def test_resizing_inside_gives_what_the_test_pipeline_of_the_config_gives() -> None:
    cfg = narrow_config("mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco")
    cfg.model.test_cfg.rpn.update(nms_pre=60, max_per_img=40)
    model = build(cfg)
    picture = np.random.randint(0, 256, (77, 101, 3), np.uint8)  # BGR, as mmcv reads it
    steps = [dict(step) for step in get_test_pipeline_cfg(cfg)]
    steps[0] = {"type": "LoadImageFromNDArray"}
    next(step for step in steps if step["type"] == "Resize")["scale"] = (192, 128)
    steps = [step for step in steps if step["type"] != "LoadAnnotations"]
    data = Compose(steps)({"img": picture, "img_id": 0})
    (sample,) = model.test_step(pseudo_collate([data]))
    made = whole(deepcopy(model), Prepare(cfg.model.data_preprocessor, "bgr"))
    made.resize = Resize((192, 128), keep_ratio=True)
    found = made(torch.from_numpy(picture)[None])
    same = compare([sample.pred_instances], found, 0.05, 1e-4, 100)
    assert same.objects >= 10 and found["masks"].shape[2:] == (77, 101)


def test_the_check_finds_objects_where_no_score_is_high_enough() -> None:
    cfg = narrow_config(f"mmdet::{STOCK['GFL']}")
    model = build(cfg)
    model.bbox_head.gfl_cls.weight.data *= 0.01
    model.bbox_head.gfl_cls.bias.data -= 20
    made = whole(deepcopy(model), Prepare(cfg.model.data_preprocessor, "rgb"))
    image = photo(1, 70, 90)
    with torch.no_grad():
        assert made(image)["boxes"].shape[1] == 0  # no object, and no fault
    assert not made.check(model, eager(made), image, 1e-4).startswith("0 ")
    assert float(made.score_threshold) == pytest.approx(model.bbox_head.test_cfg.score_thr)


def test_what_cannot_be_exported_whole_is_named() -> None:
    with pytest.raises(UserError, match=r"TOODHead whole.*RetinaHead.*--raw"):
        whole(build(narrow_config("mmdet::tood/tood_r50_fpn_1x_coco")), nn.Identity())
    assert "TOODHead" not in HEADS
    assert iou_threshold(ConfigDict(type="nms", iou_threshold=0.6)) == 0.6
    for other in ({"type": "soft_nms"}, {"max_num": 5}, {"class_agnostic": True}):
        with pytest.raises(UserError, match="suppression"):
            iou_threshold(ConfigDict(iou_threshold=0.5, **other))


# --- operators


class Operators(nn.Module):
    """What is no operator of both torch and ONNX, of boxes made of an image's pixels.

    And the grid of RTMDet's anchors, without ``indexing``, which torch cannot record twice.
    """

    least = 33
    resize = None

    def inputs(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (B, H * W, 4), some without sides, and scores (B, H * W)."""
        x = image.flatten(2).transpose(1, 2) / 255
        corner = x[..., :2] * 40
        boxes = torch.cat([corner, corner + (x[..., 1:] * 60 - 10).clamp(min=0)], 2)
        return boxes, (x[..., 0] * 7.31 + x[..., 2] * 3.17) % 1

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        boxes, scores = self.inputs(image)
        number = torch.arange(image.shape[0]).unsqueeze(1).expand(boxes.shape[:2]).flatten()
        return {
            "kept": nms(boxes, scores, 0.4, 30),
            "features": roi_align(image, boxes.flatten(0, 1), number, 3, 0.5),
            "rows": torch.meshgrid([torch.arange(side) for side in image.shape[2:]])[0],
        }


@torch.no_grad()
@pytest.mark.parametrize("kind", [".onnx", ".pt2"])
def test_operators_in_files_are_those_of_mmcv(kind: str, tmp_path: Path) -> None:
    own: Any = Operators()
    form = formats.FORMATS[kind]
    form.write(formats.record(own), tmp_path / "m", {}, None)
    run = form.load(tmp_path / "m")({})
    for shape in [(1, 33, 40), (3, 41, 35)]:
        image = photo(*shape)
        boxes, scores = own.inputs(image)
        found = run(image)
        assert torch.equal(found["rows"], own(image)["rows"])
        for i in range(shape[0]):
            _, index = mmcv_nms(boxes[i], scores[i], 0.4)
            wanted = torch.zeros(len(scores[i]), dtype=torch.bool)
            wanted[index[:30]] = True
            assert torch.equal(found["kept"][i], wanted) and wanted.sum() > 10
            rois = torch.cat([torch.full_like(boxes[i, :, :1], i), boxes[i]], 1)
            wanted = mmcv_roi_align(image, rois, 3, 0.5, 0, "avg", True)
            features = found["features"].unflatten(0, boxes.shape[:2])[i]
            torch.testing.assert_close(features, wanted, rtol=1e-5, atol=1e-3)


def test_masks_are_pasted_as_mmdet_pastes_them_on_a_cpu() -> None:
    shapes = torch.rand(1, 4, 28, 28)
    boxes = [[3.2, 4.1, 60.7, 33.3], [0, 0, 80, 50], [20, 10, 20, 30], [70.5, 40.2, 80, 50]]
    found = paste(shapes, torch.tensor([boxes]), (50, 80), 0.5)[0]
    for box, shape, mask in zip(boxes, shapes[0], found, strict=True):
        part, place = _do_paste_mask(shape[None, None], torch.tensor([box]), 50, 80)
        wanted = torch.zeros(50, 80, dtype=torch.bool)
        wanted[place] = part[0] >= 0.5
        assert torch.equal(mask, wanted)
    assert found[:2].any((1, 2)).all()


@pytest.mark.parametrize(
    ("old", "scale", "keep_ratio"),
    [((37, 53), (80, 60), True), ((301, 200), (64, 96), False), ((200, 333), (300, 120), True)],
)
def test_resizing_is_that_of_opencv_to_the_bit(
    old: tuple[int, int], scale: tuple[int, int], keep_ratio: bool
) -> None:
    picture = np.random.randint(0, 256, (*old, 3), np.uint8)
    wanted = (mmcv.imrescale if keep_ratio else mmcv.imresize)(picture, scale)
    found = Resize(scale, keep_ratio)(torch.from_numpy(picture)[None])
    assert np.array_equal(found[0].permute(1, 2, 0).numpy(), wanted)


# --- comparing


def objects() -> InstanceData:
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 20], [5, 5, 20, 20]])
    scores, labels = torch.tensor([0.9, 0.5, 0.5]), torch.tensor([1, 0, 2])
    masks = torch.zeros(3, 40, 50, dtype=torch.bool)
    masks[:, 5:9, 5:9] = True
    return InstanceData(bboxes=boxes, scores=scores, labels=labels, masks=masks)


def found(order: list[int], **changes: Any) -> dict[str, Tensor]:
    own = objects()
    values = {"boxes": own.bboxes, "scores": own.scores, "labels": own.labels, "masks": own.masks}
    for name, (place, by) in changes.items():
        values[name][place] = values[name][place] + by if name != "masks" else by
    return {name: value[order][None] for name, value in values.items()}


def test_objects_are_the_same_in_any_order_of_equal_scores() -> None:
    for order in ([0, 1, 2], [0, 2, 1]):
        assert compare([objects()], found(order), 0.05, 1e-4).objects == 3
    # the last of two alike, where there is no room for both
    assert compare([objects()], found([0, 1]), 0.05, 1e-4, most=3).objects == 2
    near = compare([objects()], found([0, 1, 2], boxes=(0, 0.005), scores=(1, 5e-5)), 0.05, 1e-4)
    assert near.objects == 3 and near.box == pytest.approx(0.005, rel=1e-3)
    assert near.score == pytest.approx(5e-5, rel=1e-2)


@pytest.mark.parametrize(
    "wrong",
    [
        found([1, 2]),
        found([0, 1]),
        found([0, 0, 1, 2]),
        found([0, 1, 2], boxes=(0, 0.02)),
        found([0, 1, 2], scores=(0, 2e-4)),
        found([0, 1, 2], labels=(0, 1)),
        found([0, 1, 2], masks=(0, torch.ones(40, 50, dtype=torch.bool))),
    ],
    ids=[
        "the first missing",
        "the last missing",
        "one twice",
        "a box",
        "a score",
        "a label",
        "a mask",
    ],
)
def test_another_object_is_a_difference(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(DifferenceError, match=r"of 3 objects"):
        compare([objects()], wrong, 0.05, 1e-4)
