"""Whatever way mmengine takes to a file, the safe reader reads it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmdet.registry
import mmengine.runner.checkpoint
import pytest
import torch
from checkpoint_files import (
    error_of,
    formats,
    made,
    same,
    save,
    touching,
)
from helpers import SMALL, small_pvt
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

import mmdet_agent  # noqa: F401  (its import makes mmengine read safely)
from agent_attention.weights.read import CheckpointError
from mmengine_agent.checkpoints import install_safe_loader, load_local
from mmengine_agent.errors import UserError


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


CODE = [
    "import os",
    "a = open('x')",
    "a = dict(b=[eval('1')])",
    "a = dict.fromkeys('x')",
    "a = dict([('type', 'os.system')])",
    "a = dict(**b)",
    "model = dict(type='os.system', command='touch x')",
    "model = {'type': 'subprocess.run'}",
    "model = {**b}",
    "b = 'os.system'\nmodel = dict(type=b)",
    "a = '{{ 1 }}'",
    "a = 9 ** 9",
    "a = b.c",
    "a = f'{b}'",
    "a = lambda: 1",
    "def a(): pass",
    "a = [b for c in d]",
    "a = (",
    "a = '\0'" + "\0",
    "(" * 9999,
    7,
]


@pytest.mark.parametrize("text", CODE)
def test_a_config_with_code_is_dropped(text: Any, tmp_path: Path) -> None:
    content = {"meta": {"config": text, "cfg": text, "iter": 3}}
    content["message_hub"] = {"runtime_info": {"cfg": text}}
    found = load_local(str(save(content, tmp_path / "a.pth")))
    assert found == {"meta": {"iter": 3}, "message_hub": {"runtime_info": {}}}


@pytest.mark.parametrize("name", ["agent_pvt_maskrcnn", "agent_pvt_semantic_fpn"])
def test_a_config_as_mmengine_writes_it_is_kept(name: str, tmp_path: Path) -> None:
    text = Config.fromfile(Path(__file__).parents[1] / f"configs/{name}.py").pretty_text
    content = {"meta": {"cfg": text}, "message_hub": {"runtime_info": {"cfg": text}}}
    assert load_local(str(save(content, tmp_path / "a.pth"))) == content


# --- every way of mmengine to a file


def by_init_cfg(path: Path) -> None:
    config = {"type": "Pretrained", "checkpoint": str(path)}
    model = mmdet.registry.MODELS.build({"type": "AgentPVT", "arch": SMALL, "init_cfg": config})
    with pytest.raises(UserError) as error:
        model.init_weights()
    raise CheckpointError(str(error.value))


ROUTES: dict[str, Callable[[Path], Any]] = {
    "init_cfg": by_init_cfg,
    "CheckpointLoader": lambda path: CheckpointLoader.load_checkpoint(str(path), "cpu"),
    "load_checkpoint": lambda path: mmengine.runner.load_checkpoint(nn.Linear(2, 2), str(path)),
    "_load_checkpoint": lambda path: mmengine.runner.checkpoint._load_checkpoint(str(path)),
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize(
    "name", ["posix.system", "builtins.eval", "torch.storage._load_from_bytes"]
)
@formats
def test_every_way_to_a_file_is_safe(
    new_format: bool, name: str, route: Callable[[Path], Any], marker: Path, tmp_path: Path
) -> None:
    content = {"state_dict": small_pvt().state_dict(), "meta": touching(marker)[name]}
    path = save(content, tmp_path / "a.pth", new_format)
    assert re.search(f"it (calls|names) {name}, ", error_of(path, route))
    assert not made(marker)


OTHERS = [
    prefix for prefix in CheckpointLoader._schemes if re.search("s3|petrel|pavi|mmcls", prefix)
]


@pytest.mark.parametrize(
    "scheme", [each for each in CheckpointLoader._schemes if each not in OTHERS]
)
def test_every_kind_of_name_is_read_by_the_safe_loader(scheme: str) -> None:
    assert CheckpointLoader._schemes[scheme].__module__ == "mmengine_agent.checkpoints"


def test_a_home_folder_may_be_written_as_a_tilde(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save({"a": 1}, tmp_path / "a.pth")
    assert CheckpointLoader.load_checkpoint("~/a.pth") == {"a": 1}


# --- names of models on mmengine's lists

LISTS = {  # the scheme of a name, and mmengine's function that gives the list
    "torchvision": "get_torchvision_models",
    "modelzoo": "get_torchvision_models",
    "open-mmlab": "get_external_models",
    "openmmlab": "get_external_models",
}
ADDRESS = "https://nowhere.invalid/known.pth"
every_list = pytest.mark.parametrize("scheme", LISTS)
Put = Callable[[Any], None]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Put:
    """Puts a checkpoint behind the one address that all lists know; the network is left alone."""
    content: list[Any] = []

    def download(address: str, path: str) -> None:
        assert address == ADDRESS
        save(content[-1], Path(path))

    models = {"known": ADDRESS, "mine": "mine.pth", "detectron/resnet50_caffe": ADDRESS}
    for name in LISTS.values():
        monkeypatch.setattr(mmengine.runner.checkpoint, name, lambda: models)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
    return content.append


@every_list
def test_a_name_on_a_list_stands_for_its_address(scheme: str, put: Put) -> None:
    content = {"state_dict": {"a": torch.ones(2)}, "meta": {"epoch": 1}}
    put(content)
    same(CheckpointLoader.load_checkpoint(f"{scheme}://known"), content)


def test_a_name_of_old_still_stands_for_the_new_one(put: Put) -> None:
    put({"a": 1})
    assert CheckpointLoader.load_checkpoint("open-mmlab://resnet50_caffe") == {"a": 1}


def test_a_list_of_ones_own_may_name_files(put: Put, tmp_path: Path) -> None:
    save({"a": 1}, tmp_path / "mine.pth")
    assert CheckpointLoader.load_checkpoint("openmmlab://mine") == {"a": 1}


@every_list
def test_an_unknown_name_is_told_the_known_ones(scheme: str, put: Put) -> None:
    with pytest.raises(CheckpointError) as error:
        CheckpointLoader.load_checkpoint(f"{scheme}://unknown")
    known = f"{scheme}:// has known, mine, detectron/resnet50_caffe"
    assert str(error.value) == f"there is no {scheme}://unknown; {known}"


@every_list
def test_what_lists_stand_for_runs_nothing(scheme: str, put: Put, marker: Path) -> None:
    put({"state_dict": {"backbone.a": torch.ones(1)}, "meta": touching(marker)["posix.system"]})
    with pytest.raises(CheckpointError, match=r"it names posix\.system, "):
        CheckpointLoader.load_checkpoint(f"{scheme}://known")
    assert not made(marker)


@pytest.mark.parametrize("prefix", ["s3://", "cluster:petrel://", "pavi://", "mmcls://"])
def test_other_schemes_keep_their_loaders_and_are_warned_of(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(
        "mmengine_agent.checkpoints.print_log", lambda text, **_: warned.append(text)
    )
    loader = CheckpointLoader._get_checkpoint_loader(f"{prefix}bucket/a.pth")
    assert loader.__wrapped__.__module__ == "mmengine.runner.checkpoint"
    with pytest.raises(Exception) as error:  # there is no such store or model here
        loader(f"{prefix}bucket/a.pth")
    assert not isinstance(error.value, CheckpointError)
    assert [f"{prefix}bucket/a.pth holds is not checked" in text for text in warned] == [True]


def test_loaders_of_other_schemes_are_wrapped_once() -> None:
    before = dict(CheckpointLoader._schemes)
    install_safe_loader()
    assert {name: before[name] for name in OTHERS} == {
        name: CheckpointLoader._schemes[name] for name in OTHERS
    }
