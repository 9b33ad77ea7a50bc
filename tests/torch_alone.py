"""A plugin of pytest for ``make quick``: OpenMMLab is not imported, and no process is started."""

import sys
from typing import Any

import pytest

OPENMMLAB = ("mmengine", "mmcv", "mmdet", "mmseg")
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"}


class Refused(BaseException):
    """Not an Exception, which the code that is tested might catch."""


def refuse(event: str, args: tuple[Any, ...]) -> None:
    """An audit hook that lets neither happen."""
    if event in STARTS:
        raise Refused(f"a quick test starts a process: {event}{args}")
    if event == "import" and args[0].partition(".")[0] in OPENMMLAB:
        raise Refused(f"a quick test imports {args[0]}")


def pytest_configure() -> None:
    sys.addaudithook(refuse)


def pytest_sessionfinish(session: pytest.Session) -> None:
    loaded = [name for name in OPENMMLAB if name in sys.modules]
    assert not loaded, f"quick tests have imported {loaded}"
