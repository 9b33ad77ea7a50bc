"""Where heads keep the number of classes: one rule for reading and for setting."""

from pathlib import Path
from typing import Any

import mmdet
import pytest
from mmengine.config import Config, ConfigDict

from mmengine_agent.class_counts import class_counts, class_total, set_class_count
from mmengine_agent.errors import UserError

HEAD = {"type": "Head", "num_classes": 80}


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        ({"bbox_head": HEAD}, {"model.bbox_head.num_classes": 7}),
        ({"roi_head": {"bbox_head": [HEAD, HEAD], "mask_head": HEAD}}, None),
        ({"rpn_head": {"num_classes": 1}, "bbox_head": HEAD}, {"model.bbox_head.num_classes": 7}),
        ({"semantic_head": {"num_classes": 183}}, {}),
        ({"backbone": {"num_classes": 1000}, "decode_head": HEAD}, None),
        ({"auxiliary_head": [{"num_classes": 2}, HEAD]}, {"model.auxiliary_head.1.num_classes": 7}),
        (
            {"panoptic_head": {"num_things_classes": 80, "num_stuff_classes": 0}},
            {"model.panoptic_head.num_things_classes": 7},
        ),
    ],
)
def test_heads_and_only_heads_get_the_number(model: dict[str, Any], wanted: Any) -> None:
    node = ConfigDict(model)
    before = {found.path: found.number for found in class_counts(node)}
    set_class_count(node, 7)
    after = {found.path: found.number for found in class_counts(node)}
    assert after == dict.fromkeys(before, 7)
    assert wanted is None or after == wanted
    others = {"rpn_head": 1, "semantic_head": 183, "backbone": 1000}
    assert all(node[key].num_classes == others[key] for key in others.keys() & node.keys())


@pytest.mark.parametrize("weights", [[1.0] * 80 + [0.1], [2.0] * 80])
def test_equal_weights_of_classes_follow(weights: list[float]) -> None:
    model = ConfigDict(head={**HEAD, "loss_cls": {"class_weight": weights}})
    set_class_count(model, 3)
    assert model.head.loss_cls.class_weight == [weights[0]] * 3 + weights[80:]


def test_weights_of_ones_own_are_asked_for() -> None:
    model = ConfigDict(head={**HEAD, "loss_cls": {"class_weight": [1.0, 2.0] * 40}})
    with pytest.raises(UserError, match=r"model\.head\.loss_cls\.class_weight has a weight for"):
        set_class_count(model, 3)


def test_things_and_stuff_are_not_guessed() -> None:
    model = ConfigDict(panoptic_head={"num_things_classes": 80, "num_stuff_classes": 53})
    with pytest.raises(UserError, match="tells things from stuff"):
        set_class_count(model, 3)


def test_things_and_stuff_are_set_where_they_are_known() -> None:
    weights = [1.0] * 133 + [0.1]
    counts = {"num_things_classes": 80, "num_stuff_classes": 53}
    model = ConfigDict(
        roi_head={"bbox_head": HEAD},
        semantic_head=dict(counts),
        panoptic_head={**counts, "loss_cls": {"class_weight": weights}},
    )
    assert class_total(model) == 133
    set_class_count(model, 8, things=5)
    assert class_total(model) == 8
    assert model.roi_head.bbox_head.num_classes == 5
    for part in (model.semantic_head, model.panoptic_head):
        assert (part.num_things_classes, part.num_stuff_classes) == (5, 3)
    assert model.panoptic_head.loss_cls.class_weight == [1.0] * 8 + [0.1]


STOCK = Path(mmdet.__file__).parent / ".mim/configs"


@pytest.mark.parametrize(
    "config",
    [
        "mask2former/mask2former_r50_8xb2-lsj-50e_coco.py",
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        "htc/htc_r50_fpn_1x_coco.py",
        "dino/dino-4scale_r50_8xb2-12e_coco.py",
        "queryinst/queryinst_r50_fpn_1x_coco.py",
    ],
)
def test_stock_configs_of_mmdet(config: str) -> None:
    cfg = Config.fromfile(STOCK / config)
    assert {found.number for found in class_counts(cfg.model)} == {80}
    set_class_count(cfg.model, 7)
    assert {found.number for found in class_counts(cfg.model)} == {7}
    assert (cfg.model.get("rpn_head") or {}).get("num_classes", 1) == 1
