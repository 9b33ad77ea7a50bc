"""Exported models: the numbers of the eager ones, at sizes that were not recorded."""

import json
import logging
import math
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import onnx
import pytest
import torch
from helpers import normal
from mmengine.config import Config
from mmseg.models.utils import Upsample
from narrow_models import Made, make, photo, predict, write_config
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.torch_version import TorchVersion

from agent_attention import AgentPVT
from agent_attention.weights.read import CheckpointError
from agent_toolkit.commands import export
from mmengine_agent.errors import UserError
from mmengine_agent.export import formats as export_formats
from mmengine_agent.export.check import difference
from mmengine_agent.export.modules import Prepare, fix_agent_grids
from mmengine_agent.task import task_of
from mmseg_agent.export import Segmentor

# batch, height, width: none is the recorded one; smaller than a stride, multiples of it, larger
SIZES = [(2, 30, 47), (1, 64, 96), (3, 211, 290)]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
close = torch.testing.assert_close


# --- layers of heads


class Layers(nn.Module):
    """What heads of mmseg are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((2, 3))
        self.up = Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"pool": self.pool(image), "up": self.up(image)}


def test_onnx_takes_layers_of_other_packages_for_open_sizes(tmp_path: Path) -> None:
    height, width = (torch.export.Dim(name, min=2) for name in ("height", "width"))
    layers = Segmentor(Layers(), nn.Identity()).model
    program = torch.export.export(
        layers,
        (torch.zeros(1, 4, 5, 7),),
        dynamic_shapes={"image": {2: height, 3: width}},
    )
    export_formats.write_onnx(program, tmp_path / "layers.onnx", {}, None)
    run = export_formats.load_onnx(tmp_path / "layers.onnx")({})
    for size in [(5, 7), (8, 6), (13, 21)]:
        x = normal(1, (1, 4, *size))
        close(run(x), Layers()(x))


def test_agents_by_a_rule_are_fixed() -> None:
    backbone = AgentPVT(agent_shapes="bounded").eval()
    image = normal(3, (1, 3, 96, 160))
    wanted = backbone(image)
    grids = fix_agent_grids(backbone, (96, 160))
    assert grids[::2] == grids[1::2] == [(2, 4), (3, 5), (5, 9), (3, 5)]  # two blocks a stage
    close(backbone(image), wanted)
    assert fix_agent_grids(backbone, (96, 160)) == []  # there is no rule any more
    assert not any(module._forward_pre_hooks for module in backbone.modules())


# --- whole models


def call(*arguments: Any) -> None:
    """The tool, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
        export.main()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A detector with its raw outputs as ONNX, and whole as torch's program."""
    made = make("retinanet", tmp_path_factory.mktemp("detector"))
    # compared below; the tool would do the same
    call(made.config, made.checkpoint, "--out", made.file("model.onnx"), "--raw", "--no-verify")
    call(made.config, made.checkpoint, "--out", made.file("model.pt2"), "--no-verify")
    return made


@pytest.fixture(scope="module")
def upernet(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = make("upernet", tmp_path_factory.mktemp("upernet"))
    files = ("--out", made.file("model.onnx"), "--out", made.file("model.pt2"))
    call(made.config, made.checkpoint, *files)
    return made


@torch.no_grad()
@pytest.mark.parametrize("name", ["detector", "upernet"])
def test_onnx_gives_the_numbers_of_the_model_at_other_sizes(
    name: str, request: pytest.FixtureRequest
) -> None:
    made: Made = request.getfixturevalue(name)
    run = export_formats.load_onnx(made.file("model.onnx"))({})
    for shape in SIZES:
        image = photo(*shape)
        close(run(image), predict(made.model, image), **CLOSE)


@torch.no_grad()
def test_files_of_one_recording_give_the_same(upernet: Made) -> None:
    image = photo(2, 70, 90)
    wanted = predict(upernet.model, image)
    for name, load in {
        "model.onnx": export_formats.load_onnx,
        "model.pt2": export_formats.load_pt2,
    }.items():
        close(load(upernet.file(name))({})(image), wanted, **CLOSE)


def test_the_file_says_what_it_takes(detector: Made) -> None:
    model = onnx.load(detector.file("model.onnx"), load_external_data=False)
    facts = {each.key: each.value for each in model.metadata_props}
    assert facts["config"] == str(detector.config)
    assert facts["input"] == "RGB, 0 to 255" and facts["padded_to"] == "32"
    (image,) = model.graph.input
    sizes = [size.dim_param or size.dim_value for size in image.type.tensor_type.shape.dim]
    assert image.name == "image" and sizes == ["batch", 3, "height", "width"]
    with ZipFile(detector.file("model.pt2")) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("facts.json"))
        whole = json.loads(archive.read(name))
    assert whole == {**facts, "task": "detection"}
    assert whole["batch"] == "any" and whole["with_resize"] == "false"
    assert len(json.loads(whole["classes"])) == len(json.loads(whole["palette"]))
    assert json.loads(whole["test_size"]) == {"scale": [1333, 800], "keep_ratio": True}


@torch.no_grad()
def test_torch_runs_its_program_at_the_sizes_it_is_for_and_refuses_others(detector: Made) -> None:
    load = export_formats.load_pt2(detector.file("model.pt2"))
    cfg = Config.fromfile(detector.config)
    whole = task_of(cfg).exported(
        deepcopy(detector.model), Prepare(cfg.model.data_preprocessor, "rgb"), "usual"
    )
    for shape in [(3, 129, 150), (1, 224, 211)]:
        said = whole.check(detector.model, load, photo(*shape), 1e-4)
        assert said.startswith(f"{30 * shape[0]} objects")
    none = load({"score_threshold": 2.0})(photo(2, 129, 150))
    shapes = {name: tuple(value.shape) for name, value in none.items()}
    assert shapes == {"boxes": (2, 0, 4), "scores": (2, 0), "labels": (2, 0)}
    with pytest.raises(AssertionError, match=">= 129"):
        load({})(photo(1, 128, 224))


@torch.no_grad()
@pytest.mark.parametrize("name", ["semantic_fpn", "retinanet"])
def test_other_models_in_another_order_of_channels(name: str, tmp_path: Path) -> None:
    made = make(name, tmp_path)
    image = photo(2, 70, 90)
    wanted = predict(made.model, image)
    cfg = Config.fromfile(made.config)
    settings = cfg.model.data_preprocessor
    outputs = "raw" if name == "retinanet" else "usual"
    model = task_of(cfg).exported(made.model, Prepare(settings, "bgr"), outputs)
    close(model(image.flip(1)), wanted, **CLOSE)


@pytest.fixture(scope="module")
def segmentor(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make("semantic_fpn", tmp_path_factory.mktemp("segmentor"))


# --- mistakes


def refusal(*arguments: Any) -> str:
    """What the tool says of a mistake."""
    with pytest.raises((UserError, CheckpointError)) as error:
        call(*arguments)
    return str(error.value)


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "another kind of file": (["{segmentor}", "--out", "{tmp}/model.trt"], [".onnx", ".pt2"]),
    "no checkpoint": (["{segmentor}", "{tmp}/none.pth", "--out", "{tmp}/m.pt2"], ["none.pth"]),
    "weights of another model": (
        ["{detector}", "{weights}", "--out", "{tmp}/m.pt2"],
        ["weights.pth", "does not fit"],
    ),
    "labels of a detector": (["{detector}", "--out", "{tmp}/m.pt2", "--labels"], ["--labels"]),
    "pictures that have no pixels": (
        ["{segmentor}", "--out", "{tmp}/m.pt2", "--with-resize", "--input", "normalised"],
        ["--with-resize", "--input normalised"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_leaves_no_file(
    mistake: str, segmentor: Made, tmp_path: Path
) -> None:
    arguments, wanted = MISTAKES[mistake]
    (tmp_path / "out").mkdir()
    places = {"segmentor": segmentor.config, "weights": segmentor.checkpoint}
    places |= {"detector": write_config("mask_rcnn", tmp_path / "detector.py")}
    places |= {"tmp": tmp_path / "out"}
    said = refusal(*(each.format(**places) for each in arguments))
    for words in wanted:
        assert words.format(**places) in said
    assert not list((tmp_path / "out").iterdir())


class Halves(nn.Module):
    """A model that is recorded wrongly: in place of the real one."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.cat([image / 2] * 3, 1)[:, :8]}


class Bessel(nn.Module):
    """An operator that ONNX lacks."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": torch.special.bessel_j0(image)}


class Branch(nn.Module):
    """A choice by values, which no graph can have."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": image if image.sum() > 0 else -image}


FAILURES: dict[str, tuple[type[nn.Module], str, list[str], list[str]]] = {
    "another result": (Halves, "m.onnx", [], ["150x230", "1.0e-04 of a score", "nothing"]),
    "an operator that ONNX lacks": (Bessel, "m.onnx", [], ["ONNX", "bessel_j0"]),
    "no graph": (Branch, "m.pt2", [], ["torch.export cannot record", "data-dependent"]),
    "an opset that is none": (Halves, "m.onnx", ["--opset", "99"], ["--opset 99"]),
}


def record_as(kind: type[nn.Module]) -> Callable[..., ExportedProgram]:
    """Record another model in the place of the one that is given."""

    def record(model: Any) -> ExportedProgram:
        other: Any = kind()
        other.least = model.least
        return export_formats.record(other)

    return record


@pytest.mark.parametrize("failure", FAILURES)
def test_what_cannot_be_exported_is_one_message_and_leaves_no_file(
    failure: str, segmentor: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, name, flags, wanted = FAILURES[failure]
    monkeypatch.setattr(export, "record", record_as(kind))
    said = refusal(segmentor.config, "--out", tmp_path / name, *flags)
    for words in wanted:
        assert words in said
    assert "\n" not in said and not list(tmp_path.iterdir())


def test_of_several_files_none_is_left_if_one_fails(
    segmentor: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "record", record_as(Halves))
    files = ("--out", tmp_path / "m.pt2", "--out", tmp_path / "m.onnx", "--no-verify")
    assert "--opset 99" in refusal(segmentor.config, *files, "--opset", "99")
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_run_is_one_message_and_is_not_left(
    segmentor: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> Any:
        raise RuntimeError("opset 27 is newer than this runtime\nsecond line")

    monkeypatch.setattr(export, "record", record_as(Halves))
    form = export_formats.FORMATS[".pt2"]._replace(load=load)
    monkeypatch.setitem(export_formats.FORMATS, ".pt2", form)
    said = refusal(segmentor.config, "--out", tmp_path / "m.pt2")
    assert logging.root.manager.disable == 0  # nothing is left of how warnings were kept quiet
    assert "does not run at batch 1 and 150x230 pixels: opset 27" in said
    assert "\n" not in said and not list(tmp_path.iterdir())


def test_missing_packages_are_named(
    segmentor: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_formats, "find_spec", lambda name: None)
    arguments = (segmentor.config, "--out", tmp_path / "model.onnx")
    assert "pip install onnx onnxscript onnxruntime" in refusal(*arguments)
    assert "needs onnx and onnxscript:" in refusal(*arguments, "--no-verify")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.1"))
    assert "needs torch 2.9" in refusal(*arguments)


def test_no_difference_is_lost() -> None:
    x = {"a": torch.ones(2, 3), "b": torch.zeros(2, 3)}

    def compare(**other: Tensor) -> float:
        return difference(lambda _: x, lambda _: {**x, **other}, torch.zeros(1))

    assert compare() == 0
    assert compare(b=torch.full((2, 3), 0.5)) == 0.5
    assert compare(b=torch.zeros(1, 3)) == math.inf
    assert math.isnan(compare(b=torch.full((2, 3), math.nan)))
    x["a"] *= 100
    assert compare(a=torch.full((2, 3), 101.0)) == pytest.approx(0.01)
    x["a"] = torch.arange(4)
    assert compare(a=torch.tensor([0, 1, 2, 0])) == 0.25
