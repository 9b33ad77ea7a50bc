"""The learning-rate finder: what it finds, how rates grow, what it leaves behind."""

import re
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from tool_runs import CONFIGS, TASKS, output, python
from torch import Tensor, nn

from mmengine_agent.errors import UserError
from mmengine_agent.run import find_lr
from mmengine_agent.run.find_lr import HIGHEST, LOWEST, lowest, smooth
from mmengine_agent.run.flags import add_training_flags

N = 40
Loss = Callable[["Line"], Tensor]


class Line(BaseModel):
    """Learns that y = 2x - 1; ``other`` may take the place of the error."""

    other: ClassVar[Loss | None] = None

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))
        self.level = nn.Parameter(torch.zeros(1))
        self.calls = 0

    def forward(self, x: list[Tensor], mode: str) -> dict[str, Tensor]:
        self.calls += 1
        places = torch.stack(x)
        error = (self.slope * places + self.level - 2 * places + 1).square().mean()
        other = type(self).other
        return {"loss": other(self) + 0 * error if other else error}


class Rates(Hook):
    """The rate of each group in each iteration."""

    seen: ClassVar[list[list[float]]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.seen.append([group["lr"] for group in runner.optim_wrapper.optimizer.param_groups])


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A training by epochs of ``Line`` on four batches, with two groups of parameters."""
    kinds = [(MODELS, "Line", Line), (HOOKS, "Rates", Rates), (DATASETS, "Points", points)]
    for registry, name, kind in kinds:
        monkeypatch.setitem(registry._module_dict, name, kind)
    monkeypatch.setattr(Rates, "seen", [])
    groups = {"custom_keys": {"level": {"lr_mult": 0.1}}, "bypass_duplicate": False}
    return Config(
        {
            "model": {"type": "Line"},
            "work_dir": str(tmp_path),
            "launcher": "none",
            "experiment_name": tmp_path.name,
            "train_dataloader": {
                "batch_size": 8,
                "dataset": {"type": "Points"},
                "sampler": {"type": "DefaultSampler", "shuffle": True},
            },
            "train_cfg": {"by_epoch": True, "max_epochs": 1},
            "optim_wrapper": {
                "optimizer": {"type": "Adam", "lr": 0.01},
                "paramwise_cfg": groups,
            },
            "param_scheduler": [{"type": "MultiStepLR", "milestones": [1]}],
            "custom_hooks": [{"type": "Rates"}],
            "default_scope": None,  # it would outlive the test
        }
    )


def points() -> list[dict[str, Tensor]]:
    return [{"x": x} for x in torch.linspace(-1, 1, 32)]


def suggested(said: str) -> float:
    """The rate in what is printed for the user to copy."""
    (rate,) = re.findall(r"--cfg-options optim_wrapper\.optimizer\.lr=(\S+)", said)
    return float(rate)


# --- runs of a tiny model


def test_rates_grow_geometrically_and_groups_keep_their_ratio(
    cfg: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    find_lr.find_lr(cfg, N)
    slope, level = np.array(Rates.seen).T
    growth = (HIGHEST / LOWEST) ** (1 / (N - 1))
    assert slope[0] == pytest.approx(LOWEST) and 0.1 < slope[-1] <= HIGHEST * 1.0001
    np.testing.assert_allclose(slope[1:] / slope[:-1], growth, rtol=1e-6)
    np.testing.assert_allclose(level / slope, 0.1, rtol=1e-6)
    said = capsys.readouterr().out
    assert slope[0] < suggested(said) <= HIGHEST
    assert "(config: 1.0e-02)" in said


def test_nothing_is_left_but_a_picture_and_logs(cfg: Config, tmp_path: Path) -> None:
    find_lr.find_lr(cfg, N)
    assert {path.name for path in tmp_path.iterdir()} == {"find_lr", "find_lr.png"}
    assert (tmp_path / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    assert not [*tmp_path.rglob("*.pth")]


@pytest.mark.parametrize("after", [float("nan"), float("inf")])
def test_it_stops_when_the_loss_is_no_number(
    cfg: Config, after: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def loss(model: Line) -> Tensor:  # falls from 5 to 1 around iteration 15, then rises slowly
        at = model.calls
        return torch.tensor(
            after if at > 30 else 3 - 2 * np.tanh(at / 3 - 5) + 0.1 * max(0, at - 22)
        )

    monkeypatch.setattr(Line, "other", staticmethod(loss))
    find_lr.find_lr(cfg, N)
    assert len(Rates.seen) == 31
    rates = [rate for rate, _ in Rates.seen]
    assert rates[17] < suggested(capsys.readouterr().out) < rates[24]


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda model: torch.tensor(float("nan")), "after 0 iterations"),
        (lambda model: torch.tensor(2 + 0.5 * (-1) ** model.calls), "fell at no learning rate"),
        (lambda model: torch.tensor(float(model.calls)), "fell at no learning rate"),
    ],
    ids=["nan", "varies", "rises"],
)
def test_where_nothing_is_found_nothing_is_suggested(
    cfg: Config,
    loss: Loss,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Line, "other", staticmethod(loss))
    with pytest.raises(UserError, match=f"--find-lr: .*{words}"):
        find_lr.find_lr(cfg, N)
    assert "optimizer.lr" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resume": True}, "--resume"),
        ({"auto_scale_lr": {"enable": True, "base_batch_size": 4}}, "--auto-scale-lr"),
        ({"optim_wrapper": {"one": {}, "two": {}}}, "no optim_wrapper.optimizer.lr"),
    ],
)
def test_what_does_not_go_together_is_said(
    cfg: Config, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    for name, value in changes.items():
        cfg[name] = value
    with pytest.raises(UserError, match=f"--find-lr: .*{words}"):
        find_lr.find_lr(cfg, N)
    assert not [*tmp_path.iterdir()]


def test_too_few_iterations_are_refused(cfg: Config) -> None:
    with pytest.raises(UserError, match=r"--find-lr: .* at least 20 .* got 3"):
        find_lr.find_lr(cfg, 3)


# --- what is found


@pytest.mark.parametrize("middle", [60, 90, 120])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_the_minimum_is_found_through_noise(middle: int, noise: float) -> None:
    place = np.arange(200)
    losses = 3 - np.tanh((place - middle) / 15) + noise * np.random.standard_normal(200)
    losses += 0.05 * np.maximum(0, place - middle - 40)  # and then it rises
    found = lowest(losses, smooth(losses))
    assert found is not None and abs(found - middle - 40) <= 20


def test_in_noise_alone_there_is_none() -> None:
    noise = [2 + 0.3 * np.random.standard_normal(200) for _ in range(50)]
    assert [lowest(each, smooth(each)) for each in noise].count(None) >= 45


# --- both tasks


@pytest.mark.parametrize("name", TASKS)
def test_the_tool_finds_a_rate_for_both_tasks(name: str, data: Path, tmp_path: Path) -> None:
    task = TASKS[name]
    where = ["--work-dir", str(tmp_path), "--data-root", str(data / task.data)]
    what = [str(CONFIGS / task.config), "--find-lr", "20", "--train-ann", task.train_ann]
    size = "train_dataloader.dataset.pipeline.2.scale=(64,64)"  # of detection; the other has none
    size = size if task.data == "coco" else "model.data_preprocessor.size=(96,96)"
    small = ["--cfg-options", "train_dataloader.batch_size=1", size]
    said = output(python("train.py", *what, *where, *small, cwd=tmp_path))
    assert LOWEST < suggested(said) <= HIGHEST
    assert (tmp_path / "find_lr.png").is_file() and not [*tmp_path.rglob("*.pth")]


def test_without_a_number_it_takes_200_iterations() -> None:
    parser = ArgumentParser()
    add_training_flags(parser)
    assert parser.parse_args([]).find_lr is None
    assert parser.parse_args(["--find-lr"]).find_lr == 200
