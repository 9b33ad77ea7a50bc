"""The guard over speed, with fake times: what it finds, and what it says."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import guard
import pytest

FIRST, SECOND = ("pvt-t", "training", "256x320"), ("swin-t", "inference", "512x512")
NOISE = (1.0, 1.02, 0.97, 5.0, 1.01)  # of one turn after the other; one was disturbed


def fake(ratios: dict[guard.Row, list[float]]) -> guard.Turn:
    """Turns of rows that take ``ratios`` times as long here, one for each measurement."""
    asked: dict[Any, int] = {}

    def turn(name: str, row: guard.Row) -> float:
        number = asked[name, row] = asked.get((name, row), -1) + 1
        ratio = ratios[row][number // len(NOISE)] if name == guard.HERE else 1.0
        return ratio * NOISE[(number + (name == guard.HERE)) % len(NOISE)]

    return turn


@pytest.mark.parametrize(
    ("ratios", "found"),
    [
        ([1.05], None),  # and it is not measured anew
        ([1.2, 1.05], None),
        ([1.2, 1.3], 1.2),
        ([1.3, 1.2], 1.2),
    ],
)
def test_a_row_is_slower_if_it_is_so_twice(ratios: list[float], found: float | None) -> None:
    slow = guard.slower([FIRST, SECOND], fake({FIRST: [0.8], SECOND: ratios}), len(NOISE), 1.1)
    assert list(slow) == ([SECOND] if found else [])
    assert slow.get(SECOND, 0) == pytest.approx(found or 0, rel=0.06)


def test_who_is_first_changes(capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []
    guard.measured(FIRST, lambda name, row: order.append(name) or 1.0, 3)  # type: ignore[func-returns-value]
    here, base = guard.HERE, guard.BASE
    assert order == [base, here, here, base, base, here]
    assert "pvt-t" in capsys.readouterr().out


def test_the_message_names_the_row_and_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def worker(tree: Path) -> Iterator[Any]:
        yield lambda row: 1.5 if tree == guard.ROOT and row == FIRST else 1.0

    @contextmanager
    def checked_out(commit: str) -> Iterator[Path]:
        yield Path("elsewhere")

    monkeypatch.setattr(guard, "worker", worker)
    monkeypatch.setattr(guard, "checked_out", checked_out)
    monkeypatch.setattr(sys, "argv", ["guard.py", "main", "--rounds", "1"])
    with pytest.raises(SystemExit) as caught:
        guard.main()
    assert caught.value.code == (
        "error: pvt-t training 256x320 takes 1.50 times as long as at main; allowed are 1.10"
    )


def test_a_commit_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["guard.py", "no-such-commit"])
    with pytest.raises(SystemExit, match="cannot check out no-such-commit"):
        guard.main()


def test_a_process_times_the_package_of_its_tree(tmp_path: Path) -> None:
    """A package of three lines in place of ours, whose backbone is called for each step."""
    (tmp_path / "agent_attention.py").write_text(
        "import torch\n"
        "class AgentPVT(torch.nn.Linear):\n"
        "    def __init__(self, arch): super().__init__(32, 2); self.calls = 0\n"
        "    def forward(self, x):\n"
        "        import time; time.sleep(0.05); return [super().forward(x)]\n"
    )
    with guard.worker(tmp_path) as ask:
        assert 0.05 <= ask(("pvt-t", "training", "32x32")) < 5
        assert 0.05 <= ask(("pvt-t", "training", "32x32")) < 5
    (tmp_path / "agent_attention.py").write_text("AgentPVT = int\n")
    with guard.worker(tmp_path) as ask, pytest.raises(SystemExit, match="cannot run pvt-t"):
        ask(("pvt-t", "training", "32x32"))
