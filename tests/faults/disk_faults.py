"""What happens to the files of a process: it dies while it writes, the disk is full, the clock off.

The functions without a return value change calls of this process, which is to be a forked one.
"""

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

STEPS = ("half written", "written", "flushed", "before the name", "named", "before a removal")


def set_clock(offset: int) -> None:
    """Have the files of this process written at other times, in seconds from the right ones."""
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        now = time.time() + offset
        os.utime(source, (now, now))
        real(source, target)

    os.replace = replace  # type: ignore[assignment]


def die_in_a_save(step: str, save: int) -> None:
    """Have this process kill itself at a step of its ``save``-th write or rename."""
    real = {name: getattr(os, name) for name in ("fsync", "replace", "remove", "unlink")}
    made = dict.fromkeys(real, 0)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fsync(handle: int) -> None:
        made["fsync"] += 1
        mine = made["fsync"] == 2 * save - 1  # contents and folders take turns
        if mine and step == "half written":
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
        if mine and step in ("half written", "written"):
            die()
        real["fsync"](handle)
        if mine and step == "flushed":
            die()

    def replace(source: Any, target: Any) -> None:
        made["replace"] += 1
        if made["replace"] == save and step == "before the name":
            die()
        real["replace"](source, target)
        if made["replace"] == save and step == "named":
            die()

    def removing(name: str) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            if str(args[0]).endswith(".pth") and step == "before a removal":
                die()
            real[name](*args, **kwargs)

        return call

    os.fsync, os.replace = fsync, replace  # type: ignore[assignment]
    os.remove, os.unlink = removing("remove"), removing("unlink")  # type: ignore[assignment]


def fail_when_full(save: int) -> None:
    """Have the ``save``-th content of this process not fit, as a late flush says it."""
    real, made = os.fsync, [0]

    def fsync(handle: int) -> None:
        made[0] += 1
        if made[0] == 2 * save - 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    os.fsync = fsync  # type: ignore[assignment]


@HOOKS.register_module(force=True)
class FillDisk(Hook):
    """Leaves room for the logs and for a part of a checkpoint, when all that is old was removed."""

    def __init__(self, part: float) -> None:
        self.part = part

    def after_train_iter(self, runner: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        folder = Path(runner.work_dir)
        ballast = folder / "ballast"
        if not ballast.exists():
            size = max((path.stat().st_size for path in folder.glob("*.pth")), default=0)
            room = 100_000 + int(self.part * (size - 200_000))
            ballast.write_bytes(bytes(shutil.disk_usage(folder).free - room))


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """A disk of memory at a folder; False where the system does not let us mount one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "none", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)
