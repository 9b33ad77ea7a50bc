"""Fixtures for tests that kill, stop and resume runs of the toy; a plugin of the tests that ask."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import toy, train


@pytest.fixture
def signals() -> Iterator[None]:
    """A run that was killed leaves its handlers, where there is no process to end."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


CALLS = ("fsync", "replace", "remove", "unlink")  # by which files get their content and names


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Have the n-th of those calls end in an error; the list holds the calls that were made."""

    def arm(count: int | None, error: BaseException, only: str | None = None) -> list[str]:
        made: list[str] = []

        def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if only in (None, name):
                    made.append(name)
                    if len(made) == count:
                        raise error
                return real(*args, **kwargs)

            return call

        monkeypatch.undo()
        for name in CALLS:
            monkeypatch.setattr(os, name, wrap(name, getattr(os, name)))
        return made

    yield arm
    monkeypatch.undo()


@pytest.fixture(scope="session")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The last checkpoints of uninterrupted toy runs, by epochs and by iterations."""
    found = {}
    for by_epoch in (True, False):
        folder = tmp_path_factory.mktemp("toy") / "run"
        train(toy(folder, by_epoch), seed=1)
        found[by_epoch] = folder / ("epoch_4.pth" if by_epoch else "iter_12.pth")
    return found
