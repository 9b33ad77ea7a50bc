"""Exported files in lower precision: what changes, and what must not."""

import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from narrow_models import write_config
from onnx import TensorProto
from PIL import Image
from small_exports import write_detector, write_network, write_segmentor
from torch import nn

from agent_attention.runtime import Model
from agent_attention.runtime.engines import ENGINES
from agent_toolkit.commands import export
from mmengine_agent.errors import UserError
from mmengine_agent.export import formats, precision
from mmengine_agent.export.low_precision import parts_of
from mmengine_agent.export.precision import agreement, change_precision, require_precision

NO_CONFIG = Config()
CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(4):
        pixels = np.random.randint(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{number}.png")
    return tmp_path / "photos"


def flags(kind: str, photos: Path | None, **more: Any) -> Namespace:
    usual = {"calibration_images": 3, "data_root": None, "out": [Path("model.onnx")]}
    usual |= {"outputs": "usual", "input": "rgb"}
    return Namespace(precision=kind, calibration=photos, **{**usual, **more})


def run(path: Path) -> dict[str, np.ndarray]:
    image = np.random.default_rng(1).integers(0, 256, (1, 3, 33, 47)).astype(np.float32)
    return dict(ENGINES["onnxruntime"](str(path), 1).run(image))


def types(path: Path) -> dict[int, int]:
    """How many constants a file has of each type."""
    kinds = [each.data_type for each in onnx.load(path).graph.initializer]
    return {kind: kinds.count(kind) for kind in set(kinds)}


def test_parts_are_told_by_what_stands_between_them_and_the_weights(tmp_path: Path) -> None:
    parts = parts_of(onnx.load(write_network(tmp_path / "m.onnx")).graph)
    assert parts.weighted == {"first_layer", "middle_layer", "last_layer"}
    assert parts.last == {"last_layer"} and parts.exact == {"normalise", "add", "multiply"}


def test_fp16_rounds_weights_and_no_places(tmp_path: Path) -> None:
    path = write_network(tmp_path / "m.onnx")
    before = run(path)
    change_precision(path, NO_CONFIG, flags("fp16", None))
    after, file = run(path), onnx.load(path)
    assert types(path)[TensorProto.FLOAT16] == 3
    assert 0 < np.abs(after["logits"] - before["logits"]).max() < 5e-3
    assert np.array_equal(after["places"], before["places"])
    assert {each.type.tensor_type.elem_type for each in file.graph.output} == {TensorProto.FLOAT}
    assert Model(path).facts["precision"] == "fp16" and Model(path).names
    assert [each.name for each in tmp_path.iterdir()] == ["m.onnx"]


def test_int8_has_integers_between_the_first_and_the_last_layer(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_network(tmp_path / "m.onnx")
    before = run(path)
    change_precision(path, NO_CONFIG, flags("int8", photos))
    after, graph = run(path), onnx.load(path).graph
    weights = {each.name: each for each in graph.initializer}
    assert types(path)[TensorProto.INT8] >= 2 and weights["last"].data_type == TensorProto.FLOAT
    scales = [each for each in graph.initializer if list(each.dims) == [16]]
    assert len(scales) >= 2  # one a channel
    assert 0 < np.abs(after["logits"] - before["logits"]).max() < 0.1
    assert np.array_equal(after["places"], before["places"])
    assert "of pixels or objects as before" in capsys.readouterr().out
    assert Model(path).facts["precision"] == "int8"


def test_fp16_that_changes_results_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_network(tmp_path / "m.onnx")
    content = path.read_bytes()
    monkeypatch.setattr(precision, "agreement", lambda *_: 0.9)
    with pytest.raises(UserError, match=r"90\.00% of pixels or objects"):
        change_precision(path, NO_CONFIG, flags("fp16", None))
    assert path.read_bytes() == content and len(list(tmp_path.iterdir())) == 1


def test_agreement_is_the_share_of_pixels_or_objects(tmp_path: Path, photos: Path) -> None:
    images = sorted(photos.iterdir())
    rgb = Model(write_segmentor(tmp_path / "rgb.onnx"))
    bgr = Model(write_segmentor(tmp_path / "bgr.onnx", input="BGR, 0 to 255"))
    green = np.mean([np.asarray(Image.open(each)).argmax(-1) == 1 for each in images])
    assert agreement(rgb, rgb, images) == 1
    assert agreement(rgb, bgr, images) == pytest.approx(green, abs=0.01)
    one = Model(write_detector(tmp_path / "one.onnx"))
    two = Model(write_detector(tmp_path / "two.onnx", scores=[0.9, 0.8, 0.0]))
    unsure = Model(write_detector(tmp_path / "unsure.onnx", scores=[0.9, 0.7, 0.0]))
    assert agreement(one, one, images) == agreement(two, two, []) == 1
    assert agreement(one, two, images) == agreement(two, unsure, images) == 0.5


# --- the tool


class Small(nn.Module):
    """A segmentor of eight classes: in place of the real one, which takes a minute to record."""

    least = 33

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 8, 1)
        )

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.layers(image / 255)}


def test_the_tool_writes_int8_and_says_what_it_costs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(export, "record", lambda _: formats.record(Small().eval()))
    config = write_config("semantic_fpn", tmp_path / "config.py")
    images = ["--calibration", str(data / "ade/images/training"), "--calibration-images", "3"]
    rest = ["--no-verify", "--precision", "int8", *images, "--data-root", str(data / "ade")]
    arguments = ["export.py", str(config), "--out", str(tmp_path / "small.onnx"), *rest]
    monkeypatch.setattr(sys, "argv", arguments)
    export.main()
    said = capsys.readouterr().out
    found = re.search(r"mIoU: fp32 ([\d.]+), int8 ([\d.]+): (-?[\d.]+) points lost", said)
    assert found and float(found[1]) > 0 and abs(float(found[3])) < 5
    model = Model(tmp_path / "small.onnx")
    assert model.facts["precision"] == "int8" and len(model.names) == 8
    assert types(tmp_path / "small.onnx")[TensorProto.INT8] >= 2


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no images for int8": ({"kind": "int8"}, "--precision int8 needs --calibration DIR"),
    "no such folder": ({"kind": "int8", "photos": Path("none")}, "--calibration none: no such"),
    "no number": (
        {"kind": "int8", "photos": Path("."), "calibration_images": 0},
        "--calibration-images must be at least 1",
    ),
    "no ONNX": (
        {"kind": "fp16", "out": [Path("model.onnx"), Path("m.pt2")]},
        "--precision fp16 is of .onnx files",
    ),
    "raw outputs": ({"kind": "fp16", "outputs": "raw"}, "leave out --raw"),
    "no data": ({"kind": "fp16", "data_root": "none"}, "no data: looked for none"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_before_anything_is_exported(mistake: str) -> None:
    given, wanted = MISTAKES[mistake]
    cfg = Config.fromfile(CONFIGS / "demo/agent_pvt_semantic_fpn_demo.py")
    with pytest.raises(UserError, match=wanted):
        require_precision(cfg, flags(**{"photos": None, **given}))
