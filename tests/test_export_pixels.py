"""Segmentors as they are exported, and models that resize: what mmseg and mmdet predict."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import seed_weights
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from narrow_models import make, photo
from piped_models import PipedModel
from query_models import DETECTORS, SEGMENTORS, build, narrow_config
from torch import Tensor, nn

from mmengine_agent.errors import UserError
from mmengine_agent.export.check import DifferenceError
from mmengine_agent.export.modules import Prepare
from mmengine_agent.export.resize import Resize
from mmengine_agent.predict.model import dataset_of
from mmengine_agent.task import task_of
from mmseg_agent.export import Segmentor
from mmseg_agent.export.compare import compare


def eager(made: Any) -> Any:
    """A file that is no file: the module itself."""
    return lambda values: made


@pytest.fixture
def segmentor(tmp_path: Path) -> tuple[Any, Config]:
    """A Semantic FPN and its config."""
    made = make("semantic_fpn", tmp_path)
    return made.model, Config.fromfile(made.config)


# --- what mmseg predicts


@pytest.mark.parametrize("outputs", ["usual", "probabilities", "labels"])
@pytest.mark.parametrize("classes", [1, 8])
def test_pixels_are_those_of_mmseg(
    classes: int, outputs: str, segmentor: tuple[Any, Config]
) -> None:
    model, cfg = segmentor
    model.decode_head.conv_seg = seed_weights(nn.Conv2d(16, classes, 1))
    model.decode_head.out_channels, model.decode_head.threshold = classes, 0.3
    made = Segmentor(deepcopy(model), Prepare(cfg.model.data_preprocessor, "rgb"), outputs)
    said = made.check(model, eager(made), photo(2, 70, 90), 1e-4)
    assert int(said.split(" labels")[0]) >= 2 and "100.000 % of the pixels" in said
    assert ("scores" in said) == (outputs != "labels")
    with torch.no_grad():
        model.decode_head.conv_seg.bias += 0.1 * torch.arange(classes) + 0.1
    with pytest.raises(DifferenceError, match="of the pixels"):
        made.check(model, eager(made), photo(2, 70, 90), 1e-4)


@pytest.mark.parametrize("name", SEGMENTORS)
def test_pixels_of_queries_are_those_of_mmseg(name: str) -> None:
    cfg = narrow_config(f"mmseg::{SEGMENTORS[name]}")
    model = build(cfg)
    made = Segmentor(deepcopy(model), Prepare(cfg.model.data_preprocessor, "rgb"))
    image = photo(2, 70, 150)
    data = {"inputs": list(image.flip(1)), "data_samples": [BaseDataElement() for _ in image]}
    x = model.data_preprocessor(data)["inputs"]  # one of them is padded
    torch.testing.assert_close(made.enter(image)[0], x)
    said = made.check(model, eager(made), image, 1e-4)
    assert int(said.split(" labels")[0]) >= 2 and "100.000 % of the pixels" in said


def test_a_sliding_window_is_refused(segmentor: tuple[Any, Config]) -> None:
    model, _ = segmentor
    model.test_cfg = {"mode": "slide", "crop_size": (64, 64), "stride": (32, 32)}
    with pytest.raises(UserError, match=r"windows.* model\.test_cfg\.mode=whole"):
        Segmentor(model, nn.Identity())


# --- resizing inside


def piped(name: str, scale: tuple[int, int]) -> str:
    """What a model that resizes differs by from its config's test pipeline."""
    cfg = narrow_config(name)
    next(each for each in dataset_of(cfg).pipeline if each["type"] == "Resize")["scale"] = scale
    model, prepare = build(cfg), Prepare(cfg.model.data_preprocessor, "rgb")
    made = task_of(cfg).exported(deepcopy(model), prepare, "usual")
    made.resize = Resize(scale, keep_ratio=True)
    picture = photo(1, 77, 101).permute(0, 2, 3, 1).byte()
    return made.check(PipedModel(model, cfg, picture), eager(made), picture, 1e-4)


@pytest.mark.parametrize("scale", [(200, 120), (96, 70)])
def test_pixels_are_those_of_the_test_pipeline(scale: tuple[int, int]) -> None:
    said = piped("mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512", scale)
    assert int(said.split(" labels")[0]) >= 2


def test_objects_of_queries_are_those_of_the_test_pipeline() -> None:
    said = piped(f"mmdet::{DETECTORS['Deformable DETR']}", (200, 120))
    assert int(said.split(" objects")[0]) >= 10


# --- comparing

LABELS = torch.tensor([[[0, 1, 2], [2, 2, 1]]]).repeat(1, 20, 20)
LOGITS = nn.functional.one_hot(LABELS, 3).permute(0, 3, 1, 2) * 4.0
WANTED = {"labels": LABELS, "logits": LOGITS, "probabilities": LOGITS.softmax(1)}


def changed(name: str, by: float, pixels: int = 1) -> dict[str, Tensor]:
    """What is wanted, with other values of some pixels."""
    values = WANTED[name].clone()
    values[..., 0, :pixels] += by
    return {**WANTED, name: values}


@pytest.mark.parametrize(
    "wrong",
    [
        changed("labels", 1, pixels=3),
        changed("logits", 5e-4),
        changed("probabilities", 2e-4),
        changed("probabilities", math.nan),
        {"labels": LABELS[:, :1]},
    ],
    ids=["labels", "a logit", "a probability", "no number", "a shape"],
)
def test_other_pixels_are_a_difference(wrong: dict[str, Tensor]) -> None:
    with pytest.raises(DifferenceError):
        compare(WANTED, wrong, 1e-4)


def test_what_is_within_the_bounds_is_said() -> None:
    said = compare(WANTED, changed("labels", 1), 1e-4)
    assert said == "3 labels, 99.958 % of the pixels, scores 0.0e+00"
    assert compare(WANTED, {"labels": LABELS}, 1e-4) == "3 labels, 100.000 % of the pixels"
