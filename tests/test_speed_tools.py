"""Benchmarks of what surrounds a model, and of the table of sizes, on small things."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import evaluation
import make_demo_data
import pytest
import run_costs
import torch
import tune

from agent_attention.compute.guard import Settings, settings

CONFIGS = Path(__file__).parents[1] / "configs/demo"


def fake_times(best: dict[str, int]) -> Callable[..., dict[str, list[float]]]:
    """Times that grow with the distance of a setting from the best one."""

    def times(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
        found = {}
        for name, call in calls.items():
            seen: list[float] = []
            tune_step[0] = lambda: seen.append(distance())  # noqa: B023
            call()
            found[name] = seen * rounds
        return found

    def distance() -> float:
        powers = {key: getattr(settings(), key).bit_length() - 1 for key in best}
        return 1 + sum(abs(power - best[key]) for key, power in powers.items())

    return times


tune_step: list[Callable[[], None]] = [lambda: None]


def test_the_quickest_value_of_each_size_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [lambda: tune_step[0]()] * 2
    monkeypatch.setattr(tune, "mixer_steps", lambda *_: steps)
    monkeypatch.setattr(tune, "backbone_steps", lambda *_: steps)
    monkeypatch.setattr(tune, "times", fake_times({"few": 18, "chunk": 23}))
    monkeypatch.setattr(sys, "argv", ["tune.py", "--rounds", "1", "--least", "0.1"])
    tune.main()
    said = capsys.readouterr().out
    assert "few: int = 1 << 18" in said and "chunk: int = 1 << 23" in said
    assert "kept: int = 1 << 23" in said  # as it stands
    sizes = {name for name, value in Settings()._asdict().items() if isinstance(value, int)}
    assert sizes == set(tune.FIELDS)


@pytest.mark.parametrize("field", tune.MIXERS)
def test_a_mixer_has_steps_between_the_values(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "Settings", lambda: Settings(**{field: 1 << 12}))
    ratios = tune.means(field, 1 << 12, 1)
    assert set(ratios) == {1 << power for power in range(10, 15)} and ratios[1 << 12] == 1
    (step, *_) = tune.backbone_steps("kept")
    assert step.mode == "training"  # type: ignore[attr-defined]


def test_the_costs_of_a_run_are_taken_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_demo_data.generate(tmp_path / "data", train=8, val=1, size=64)
    config = CONFIGS / "agent_pvt_semantic_fpn_demo.py"
    flags = ["--data-root", str(tmp_path / "data/ade"), "--out", str(tmp_path), "--iters", "4"]
    options = ["train_dataloader.batch_size=2", "train_dataloader.num_workers=0"]
    options += ["train_dataloader.persistent_workers=False"]
    monkeypatch.setattr(sys, "argv", ["x", str(config), *flags, "--cfg-options", *options])
    run_costs.main()
    report = json.loads((tmp_path / f"run-costs-{config.stem}.json").read_text())
    means = report["means"]
    assert {"waiting for data", "model and optimizer", "LoggerHook", "BadLossesHook"} <= set(means)
    parts = sum(each for name, each in means.items() if name != "in all")
    assert 0 < parts == pytest.approx(means["in all"], rel=0.05)
    assert report["checkpoint"] > 0
    assert "model and optimizer" in capsys.readouterr().out


def test_an_evaluation_of_drawn_predictions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--images", "12", "--metrics", "bbox", "segm"]
    monkeypatch.setattr(evaluation, "CLASSES", 3)
    monkeypatch.setattr(evaluation, "NAMES", evaluation.NAMES[:3])
    monkeypatch.setattr(sys, "argv", ["evaluation.py", *flags])
    evaluation.main()
    line = next(each for each in capsys.readouterr().out.splitlines() if "pycocotools" in each)
    assert all(0.1 < float(score) < 0.9 for score in line.split()[2:])


def test_settings_are_as_before_afterwards() -> None:
    tune.under("few", 3, lambda: None)
    assert settings() == Settings() and torch.is_grad_enabled()
