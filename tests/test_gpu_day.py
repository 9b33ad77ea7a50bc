"""What is run on a machine with a GPU, tried without one."""

import json
import sys
from pathlib import Path
from typing import Any

import gpu_checks
import gpu_day
import pytest
import torch
from helpers import SMALL, small_pvt

from agent_attention.backbones import pvt
from agent_attention.mixers.agent import AgentAttention

FLAGS = (
    *("--device", "cpu", "--rounds", "1", "--check", "pvt-t", "--check-size", "64", "64"),
    *("--compile", "--models", "pvt-t", "--types", "float32", "--settings", "1x32x64"),
)


def run(monkeypatch: pytest.MonkeyPatch, *flags: Any) -> None:
    monkeypatch.setitem(pvt.ARCHS, "tiny", SMALL)
    monkeypatch.setattr(gpu_checks, "MIXERS", {"agent": AgentAttention})
    monkeypatch.setattr(sys, "argv", ["gpu_day.py", *FLAGS, *map(str, flags)])
    gpu_day.main()


def test_checks_and_times_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tests.txt").write_text("..\n=== 2 passed in 1s ===\n")
    run(monkeypatch, "--out", tmp_path)
    checks, times = (
        json.loads((tmp_path / f"{part}.json").read_text())["records"] for part in gpu_day.PARTS
    )
    assert all(each["passed"] and each["where"] in ("pvt-t", "agent") for each in checks)
    assert {"maps, channels last", "finite up to, float16"} <= {each["what"] for each in checks}
    forms = {"ours", "plain", "published", "softmax", "reduced"}
    assert {(each["form"], each["mode"]) for each in times} == {
        (form, mode) for form in forms for mode in gpu_day.MODES
    }
    report = (tmp_path / "report.md").read_text()
    assert report in capsys.readouterr().out
    assert "2 passed in 1s" in report and report.count("| pvt-t | 1 x 32 x 64 | float32 |") == 2


def test_a_wrong_number_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_wrong_gradients(self: Any, q: Any, k: Any, v: Any, size: Any) -> Any:
        out = mix(self, q, k, v, size)
        return out + 0.1 * (q - q.detach())

    mix = AgentAttention.mix
    found = []
    for step in (0, 1):  # the definition first, then what is on the device
        if step:
            monkeypatch.setattr(AgentAttention, "mix", with_wrong_gradients)
        found.append(gpu_checks.results(small_pvt().eval(), gpu_checks.random((1, 3, 64, 64), 0)))
    limits = (gpu_checks.VALUES, gpu_checks.GRADIENTS)
    maps, gradients = gpu_checks.compare("float32", "pvt-t", found[1], found[0], limits)
    assert maps.passed and not gradients.passed
    assert not gpu_checks.Check("", "", float("nan"), 1.0).passed


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(gpu_day.UserError, match="torch sees no GPU"):
        run(monkeypatch, "--device", "cuda")
