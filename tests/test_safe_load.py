"""Checkpoint files are read in full; objects of unknown classes become plain dicts."""

import collections
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import (
    everything,
    formats,
    loaders,
    same,
    save,
)
from helpers import normal
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader, save_checkpoint
from torch import nn

import mmdet_agent  # noqa: F401  (its import makes mmengine read safely)
from agent_attention.weights.read import load_file


@formats
@loaders
def test_tensors_and_plain_containers_are_read_as_torch_does(
    load: Callable[..., Any], new_format: bool, tmp_path: Path
) -> None:
    path = save(everything(), tmp_path / "all.pth", new_format)
    found, wanted = load(path), torch.load(path, weights_only=False)
    same(found, wanted)
    first, second, third = found["views"]
    assert first.data_ptr() == third.data_ptr() == second.data_ptr() - 6 * 4
    first[1, 2] = 99
    assert second[0, 1] == third[2, 1] == 99


def test_a_path_may_be_text(tmp_path: Path) -> None:
    assert load_file(str(save({"a": 1}, tmp_path / "a.pth"))) == {"a": 1}


def test_the_state_of_a_run_is_read_back(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    hub = MessageHub("test_safe_load")
    for step in range(5):
        hub.update_scalar("train/loss", 1.0 / (step + 1))
    hub.update_info("iter", 5)
    content = {
        "meta": {
            "epoch": 1,
            "seed": 3,
            "dataset_meta": {"classes": ("a",), "palette": [(1, 2, 3)]},
        },
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [scheduler.state_dict()],
        "message_hub": hub.state_dict(),
    }
    save_checkpoint(content, str(tmp_path / "epoch_1.pth"))
    found = CheckpointLoader.load_checkpoint(str(tmp_path / "epoch_1.pth"), "cpu")

    for key in ("meta", "state_dict", "optimizer", "param_schedulers"):
        same(found[key], content[key])
    history = found["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.mean(5) == pytest.approx(hub.get_scalar("train/loss").mean(5))
    assert history.statistics("current") == pytest.approx(0.2)
    history.update(0.1)
    other = MessageHub("test_safe_load_again")
    other.load_state_dict(found["message_hub"])
    assert other.get_info("iter") == 5 and other.get_scalar("train/loss").current() == 0.1


# --- unknown classes


class Node(dict):  # type: ignore[type-arg]
    pass


class Thing:
    def __init__(self, value: Any) -> None:
        self.value = value


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Puts classes into a module ``vanished``, and gives what makes it vanish."""
    module = types.ModuleType("vanished")
    for kind in (Node, Thing):
        monkeypatch.setattr(kind, "__module__", "vanished")
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "vanished", module)
    yield lambda: monkeypatch.delitem(sys.modules, "vanished")


@formats
def test_objects_of_unknown_classes_become_plain_dicts(
    new_format: bool, gone: Callable[[], None], tmp_path: Path
) -> None:
    node = Node(a=1, inner=Node(rows=[1, Thing(2)]))
    node.attribute = Thing([Node(b=2)])  # type: ignore[attr-defined]
    content: dict[str, Any] = {"config": [node, Thing(None)], "same": node, "epoch": 3}
    content["model"] = {"weight": normal(1, (2, 3))}
    path = save(content, tmp_path / "a.pth", new_format)
    gone()
    found = load_file(path)
    assert [type(thing) for thing in found["config"]] == [collections.OrderedDict] * 2
    assert found["same"] is found["config"][0] and found["epoch"] == 3
    assert found["same"] == {"a": 1, "inner": {"rows": [1, {}]}}
    same(found["model"], content["model"])


def test_an_unknown_class_cannot_be_called(gone: Callable[[], None], tmp_path: Path) -> None:
    path = save({"kind": Thing}, tmp_path / "a.pth")
    gone()
    kind = load_file(path)["kind"]
    with pytest.raises(Exception, match=r"it calls vanished\.Thing"):
        kind(1)
