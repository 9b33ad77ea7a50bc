"""Published checkpoints are converted whole, with every tensor as it was, or not at all."""

import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fork_server
import golden_cases
import mmdet.registry
import pytest
import torch
from golden_cases import published_keys
from helpers import seed_weights
from mmengine.config import Config
from safetensors.torch import save_file
from torch import Tensor

import mmdet_agent  # noqa: F401  (its import registers the backbones)
from agent_attention import AgentPVT, AgentSwinTransformer
from agent_attention.weights.fit import backbone_weights
from agent_attention.weights.read import CheckpointError, load_file
from agent_toolkit.commands import convert as convert_checkpoint
from mmengine_agent.errors import UserError

State = dict[str, Tensor]
Convert = Callable[..., State]
ROOT = Path(__file__).parents[1]
NOISE = torch.ones(2, 3)


class CfgNode(dict):  # type: ignore[type-arg]
    """Like that of yacs, which is in the published files."""


@functools.cache
def tiny(img_size: int = 224) -> State:
    """The weights of a published architecture."""
    return seed_weights(AgentPVT("tiny", pretrain_img_size=img_size)).state_dict()


def classifier(folder: Path, img_size: int = 224, **changes: Tensor | None) -> Path:
    """An ImageNet file as the authors publish them; a change of None takes a tensor out."""
    changed = {**tiny(img_size), "head.weight": NOISE, "head.bias": NOISE, **changes}
    weights = {key: value for key, value in changed.items() if value is not None}
    path = folder / "imagenet.pth"
    torch.save({"model": weights, "config": CfgNode(MODEL=CfgNode()), "epoch": 299}, path)
    return path


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch) -> Convert:
    """Runs the tool; gives the weights that it wrote."""

    def run(source: Path, out: Path, *flags: str) -> State:
        arguments = ["convert_checkpoint.py", str(source), str(out), *flags]
        monkeypatch.setattr("sys.argv", arguments)
        convert_checkpoint.main()
        content = load_file(out)
        return content if out.suffix == ".safetensors" else content["state_dict"]

    return run


def refusal(convert: Convert, *arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        convert(*arguments)
    return str(error.value)


def same(found: State, wanted: State) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


# ---- backbones ----


@pytest.mark.parametrize("name", ["a.pth", "folders/that are new/a.pth", "a.safetensors"])
def test_a_classifier_becomes_a_backbone_that_init_cfg_loads(
    name: str, convert: Convert, tmp_path: Path
) -> None:
    out = tmp_path / name
    assert same(convert(classifier(tmp_path), out), tiny())
    init_cfg = {"type": "Pretrained", "checkpoint": str(out)}
    config = {"type": "AgentPVT", "arch": "tiny", "init_cfg": init_cfg}
    model = mmdet.registry.MODELS.build(config)
    model.init_weights()
    assert same(model.state_dict(), tiny())
    assert not [*tmp_path.rglob("*.part")]


@pytest.mark.parametrize("variant", ["agent_deit_t", "agent_cswin_t", "flatten_swin_t"])
def test_averaged_weights_of_the_further_backbones_are_converted(
    variant: str, convert: Convert, tmp_path: Path
) -> None:
    shapes = published_keys()[variant]
    found = {key: torch.full((1,), 0.5).expand(shape) for key, shape in shapes.items()}
    other = {key: value + 1 for key, value in found.items()}
    torch.save({"model": other, "state_dict_ema": found, "epoch": 299}, tmp_path / "in.pth")
    weights = convert(tmp_path / "in.pth", tmp_path / "out.pth")
    model = golden_cases.build(variant)
    assert weights.keys() <= model.state_dict().keys() and "head.weight" not in weights
    assert all(value.eq(0.5).all() for key, value in weights.items() if "index" not in key)
    assert all(key.startswith("norm") for key in model.state_dict().keys() - weights.keys())


def test_safetensors_are_converted(convert: Convert, tmp_path: Path) -> None:
    save_file({**tiny(), "head.weight": NOISE}, tmp_path / "in.safetensors")
    assert same(convert(tmp_path / "in.safetensors", tmp_path / "out.pth"), tiny())


def test_tables_keep_their_size_unless_another_is_asked_for(
    convert: Convert, tmp_path: Path
) -> None:
    source = classifier(tmp_path, 256)
    assert same(convert(source, tmp_path / "256.pth"), tiny(256))
    resized = convert(source, tmp_path / "224.pth", "--pretrain-img-size", "224")
    assert same(resized, backbone_weights(tiny(256), AgentPVT("tiny")).weights)


# ---- whole detectors ----


def save_detector(weights: State, path: Path) -> Path:
    """A file as mmdet 2 writes them."""
    meta = {"mmdet_version": "2.28.1", "CLASSES": ("person",), "config": "model = dict()"}
    torch.save({"meta": meta, "state_dict": weights, "optimizer": {"state": {}}}, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_detector_keeps_every_tensor(suffix: str, convert: Convert, tmp_path: Path) -> None:
    config = Config.fromfile(ROOT / "configs/agent_pvt/retinanet_agent-pvt-t_fpn_1x_coco.py")
    config.model.backbone.init_cfg = None
    model = mmdet.registry.MODELS.build(config.model)
    wanted = model.state_dict()
    found = convert(save_detector(wanted, tmp_path / "in.pth"), tmp_path / f"out{suffix}")
    assert same(found, wanted)
    model.load_state_dict(found)


def test_a_detector_gains_no_tensor(convert: Convert, tmp_path: Path) -> None:
    swin = AgentSwinTransformer("tiny").state_dict()
    kept = {f"backbone.{key}": value for key, value in swin.items() if key != "norm1.weight"}
    kept["bbox_head.bias"] = NOISE
    assert same(convert(save_detector(kept, tmp_path / "in.pth"), tmp_path / "out.pth"), kept)


# ---- mistakes ----


def test_what_is_there_is_replaced_only_by_force(convert: Convert, tmp_path: Path) -> None:
    source, out = classifier(tmp_path), tmp_path / "out.pth"
    out.write_text("mine")
    said = refusal(convert, source, out)
    assert str(out) in said and "--force" in said and out.read_text() == "mine"
    assert same(convert(source, out, "--force"), tiny())


@pytest.mark.parametrize(
    "name", ["out", "out.pt", "out.pth.tar", "folder.pth", "imagenet.pth/a.pth"]
)
def test_out_must_be_a_file_of_a_known_ending(name: str, convert: Convert, tmp_path: Path) -> None:
    (tmp_path / "folder.pth").mkdir()
    source = classifier(tmp_path)
    assert str(tmp_path / name) in refusal(convert, source, tmp_path / name, "--force")
    assert {path.name for path in tmp_path.iterdir()} == {"folder.pth", "imagenet.pth"}


def test_what_is_no_backbone_is_named_and_nothing_is_written(
    convert: Convert, tmp_path: Path
) -> None:
    source = tmp_path / "resnet.pth"
    torch.save({"state_dict": {"conv1.weight": NOISE, "fc.bias": NOISE}}, source)
    said = refusal(convert, source, tmp_path / "out.pth")
    assert str(source) in said and "conv1.weight, fc.bias" in said
    assert [*tmp_path.iterdir()] == [source]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"block2.0.attn.na_bias": None}, "1 missing (block2.0.attn.na_bias)"),
        ({"block1.0.gamma": NOISE}, "1 left over (block1.0.gamma)"),
        ({"pos_embed2": NOISE}, "1 of another shape (pos_embed2 (2, 3) instead of (1, 784, 128))"),
    ],
)
def test_a_file_that_does_not_fit_is_told_by_its_keys(
    change: dict[str, Tensor | None], fault: str, convert: Convert, tmp_path: Path
) -> None:
    source = classifier(tmp_path, **change)
    said = refusal(convert, source, tmp_path / "out.pth")
    assert str(source) in said and fault in said
    assert [*tmp_path.iterdir()] == [source]


@pytest.mark.parametrize("size", ["0", "-224", "31", "1000000"])
def test_an_image_size_that_no_backbone_has_is_refused(
    size: str, convert: Convert, tmp_path: Path
) -> None:
    flags = ("--pretrain-img-size", size)
    assert "pretrain_img_size" in refusal(
        convert, classifier(tmp_path), tmp_path / "out.pth", *flags
    )


class Touch:
    """Has a file made when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_nothing_in_a_file_is_run(convert: Convert, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"model": tiny(), "config": Touch(marker)}, tmp_path / "in.pth")
    with pytest.raises(CheckpointError, match=r"it names posix\.mkdir"):
        convert(tmp_path / "in.pth", tmp_path / "out.pth")
    assert [*tmp_path.iterdir()] == [tmp_path / "in.pth"]


# ---- the command line ----


def command_line(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return fork_server.run([ROOT / "tools/convert_checkpoint.py", source, out])


def test_the_command_prints_a_report(tmp_path: Path) -> None:
    source, out = classifier(tmp_path), tmp_path / "out.pth"
    done = command_line(source, out)
    assert done.returncode == 0, done.stderr
    assert f"{source} looks like AgentPVT 'tiny' pre-trained at 224 pixels" in done.stdout
    assert (
        f"backbone: {len(tiny())} tensors matched, 0 resized, 2 dropped (head.bias, " in done.stdout
    )
    assert f"written: {out} (" in done.stdout


def test_the_command_says_in_one_message_that_a_file_is_missing(tmp_path: Path) -> None:
    done = command_line(tmp_path / "nowhere.pth", tmp_path / "out.pth")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1
    assert f"there is no file {tmp_path / 'nowhere.pth'}" in done.stderr
