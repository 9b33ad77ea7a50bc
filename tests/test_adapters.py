"""The OpenMMLab side: registration, what is imported when, versions, weights by ``init_cfg``."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import mmdet.registry
import mmseg.registry
import pytest
import torch
from helpers import SMALL, run_without, small_pvt
from mmengine.model import BaseModule, PretrainedInit
from torch import nn

import agent_attention
import mmdet_agent
import mmseg_agent
from mmengine_agent import versions
from mmengine_agent.errors import UserError

ROOT = Path(agent_attention.__file__).parents[1]
REGISTRIES = [mmdet.registry.MODELS, mmseg.registry.MODELS]
MM = ("mmengine", "mmcv", "mmdet", "mmseg")
both = pytest.mark.parametrize("registry", REGISTRIES, ids=["mmdet", "mmseg"])


def build(registry: Any = REGISTRIES[0], **options: Any) -> Any:
    """A small registered backbone, as a config gives it."""
    return registry.build({"type": "AgentPVT", "arch": SMALL, **options})


# --- registration


@both
def test_the_backbone_is_registered(registry: Any) -> None:
    assert registry.get("AgentPVT") is mmdet_agent.AgentPVT is mmseg_agent.AgentPVT
    model = build(registry)
    assert isinstance(model, agent_attention.AgentPVT) and isinstance(model, BaseModule)


@pytest.mark.parametrize("adapter", [mmdet_agent, mmseg_agent])
def test_a_second_import_does_no_harm(adapter: Any) -> None:
    importlib.reload(adapter)
    assert build().__class__ is mmdet_agent.AgentPVT


def test_a_registered_backbone_computes_what_the_plain_one_does() -> None:
    plain, registered = agent_attention.AgentPVT(SMALL), build(init_cfg=None)
    registered.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(registered.eval()(image), plain.eval()(image))


@both
def test_unknown_arguments_are_refused(registry: Any) -> None:
    with pytest.raises(TypeError, match=r"AgentPVT.*unexpected keyword argument 'num_classes'"):
        build(registry, num_classes=80)


# --- imports


@pytest.mark.parametrize(("name", "other"), [("mmdet", "mmseg"), ("mmseg", "mmdet")])
def test_an_adapter_works_without_the_other_package(name: str, other: str) -> None:
    code = f"""
import {name}_agent
from {name}.registry import MODELS
assert MODELS.get("AgentPVT") is {name}_agent.AgentPVT
assert {other!r} not in sys.modules
"""
    run_without((other,), code)


def test_the_core_works_without_openmmlab() -> None:
    code = f"""
import torch
import agent_attention, agent_attention.weights.fit
model = agent_attention.AgentPVT({SMALL!r}).eval()
assert len(model(torch.zeros(1, 3, 32, 32))) == 4
assert not [name for name in sys.modules if name.startswith({MM!r})]
"""
    run_without(MM, code)


# --- versions


def refusal(*names: str) -> str:
    """The one sentence of the ImportError."""
    with pytest.raises(ImportError) as error:
        versions.require(*names)
    message = str(error.value)
    assert "\n" not in message and message.endswith(".") and message.count(". ") == 0, message
    return message


def test_installed_versions_are_accepted() -> None:
    versions.require(*MM)


@pytest.mark.parametrize("name", MM)
def test_unsupported_versions_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    support = versions.SUPPORTED[name]
    for found in ("0.9.1", support.below, f"{support.below}.1+cu118", "unknown", None):
        monkeypatch.setattr(f"{name}.__version__", found)
        message = refusal(name)
        assert message.startswith(f"{name} {found} is not supported")
        assert f"install {support.maintained} or {support.upstream}" in message


@pytest.mark.parametrize("name", MM)
def test_supported_versions_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = versions.SUPPORTED[name].first
    major, minor, patch = first.split(".")
    later = [f"{major}.{minor}.{int(patch) + 10}", f"{major}.{int(minor) + 10}.0"]
    for found in [first, f"{first}+cu118", f"{later[0]}rc1", *later]:
        monkeypatch.setattr(f"{name}.__version__", found)
        versions.require(name)


@pytest.mark.parametrize("name", MM)
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    message = refusal(*MM)
    assert message.startswith(f"{name} cannot be imported")
    support = versions.SUPPORTED[name]
    assert f"install {support.maintained} or {support.upstream}" in message


def test_mmcv_without_operators_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mmcv._ext", None)
    message = refusal("mmengine", "mmcv")
    assert message.startswith("mmcv has no compiled operators for this torch")
    assert "build it again" in message and "wheel" in message
    versions.require("mmengine")


def test_packages_that_refuse_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mmdet").mkdir()
    code = "assert False, 'MMCV==2.3.6 is used but incompatible,\\nplease install mmcv<2.2'\n"
    (tmp_path / "mmdet" / "__init__.py").write_text(code)
    monkeypatch.delitem(sys.modules, "mmdet")
    monkeypatch.syspath_prepend(tmp_path)
    message = refusal(*MM)
    assert message.startswith("mmdet refuses the versions beside it (MMCV==2.3.6 is used but inc")
    assert "install one family in whole" in message


# --- weights


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def pretrained(path: Path) -> dict[str, str]:
    return {"type": "Pretrained", "checkpoint": str(path)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of seeded weights, wrapped as the published ones are."""
    path = tmp_path_factory.mktemp("weights") / "agent_pvt_small.pth"
    torch.save({"model": small_pvt().state_dict(), "epoch": 299}, path)
    return path


@both
def test_without_init_cfg_the_first_values_stay(registry: Any) -> None:
    model = build(registry, init_cfg=None)
    before = values(model)
    model.init_weights()
    assert same(values(model), before) and model.is_init


@both
def test_pretrained_weights_are_loaded_in_full(registry: Any, weights: Path) -> None:
    model = build(registry, init_cfg=pretrained(weights))
    wanted = values(small_pvt())
    before = values(model)
    assert not any(torch.equal(before[key], value) for key, value in wanted.items() if value.any())
    model.init_weights()
    assert same(values(model), wanted) and model.is_init


@pytest.mark.parametrize("kind", ["Pretrained", PretrainedInit], ids=["name", "class"])
@pytest.mark.parametrize("as_list", [False, True])
def test_every_spelling_of_pretrained_loads_in_full_or_fails(
    kind: Any, as_list: bool, weights: Path
) -> None:
    config = {"type": kind, "checkpoint": str(weights)}
    model = build(init_cfg=[config] if as_list else config)
    model.init_weights()
    assert same(values(model), values(small_pvt()))
    misfit = build(init_cfg=[config] if as_list else config, attn_types="AAAB")
    with pytest.raises(UserError, match=re.escape(str(weights))):
        misfit.init_weights()


def test_a_model_around_the_backbone_loads_it(weights: Path) -> None:
    class Detector(BaseModule):
        def __init__(self) -> None:
            super().__init__({"type": "Constant", "layer": "Conv2d", "val": 7.0})
            self.backbone = build(init_cfg=pretrained(weights))
            self.head = nn.Conv2d(2, 2, 1)

    detector = Detector()
    detector.init_weights()
    assert same(values(detector.backbone), values(small_pvt()))
    assert torch.all(detector.head.weight == 7)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404 not found</html>", "cut", "a list", "a folder", "nowhere"],
    ids=["empty", "no checkpoint", "cut", "a list", "a folder", "nowhere"],
)
def test_files_that_cannot_be_read_are_named(content: Any, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.pth"
    if content == "cut":
        path.write_bytes(weights.read_bytes()[:-5000])
    elif content == "a list":
        torch.save([1, 2], path)
    elif content == "a folder":
        path.mkdir()
    elif content != "nowhere":
        path.write_bytes(content)
    model = build(init_cfg=pretrained(path))
    with pytest.raises(UserError, match=re.escape(str(path))):
        model.init_weights()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"arch": {**SMALL, "depths": (1, 2, 2, 1)}}, "missing (block3.1."),
        ({"attn_types": "AAAB"}, "left over (block4.0.attn.ah_bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    options: dict[str, Any], fault: str, weights: Path
) -> None:
    model = build(**options, init_cfg=pretrained(weights))
    before = values(model)
    with pytest.raises(UserError) as error:
        model.init_weights()
    message = str(error.value)
    assert str(weights) in message and fault in message
    assert same(values(model), before)


@pytest.mark.parametrize("as_list", [False, True])
def test_other_kinds_of_init_cfg_still_work(as_list: bool) -> None:
    config = {"type": "TruncNormal", "layer": "Linear", "std": 0.5}
    model = build(init_cfg=[config] if as_list else config)
    before = values(model)
    model.init_weights()
    for name, module in model.named_modules():
        for part, value in module.named_parameters(name, recurse=False):
            if isinstance(module, nn.Linear) and part.endswith("weight"):
                assert value.std().item() == pytest.approx(0.5, rel=0.25), part
            elif not isinstance(module, nn.Linear):
                assert torch.equal(value, before[part]), part
