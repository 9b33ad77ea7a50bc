"""Kill a training again and again, and see that nothing is lost.

    python tests/faults/kills.py --kills 200
    python tests/faults/kills.py --task segmentation --kills 20 --full 20

A tiny detector or segmentor is trained through mmengine's Runner with the toolkit's hooks, in a
process of its own that SIGKILL ends: half of the times at a random moment, half of them inside a
save, at a random step of it. After each kill the newest checkpoint must be whole, the pointer must
name one that is there, and the next process goes on with it. At the end the weights are compared
with those of a run that was never killed. With --full the disk is full during that many saves: a
small one of memory where the system lets us mount one, else calls that fail.

Prints a row of a table; exit code 1 if a promise was broken.
"""

import argparse
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a pool of threads does not survive a fork
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny_runs import difference, make_data, tiny, train
from tqdm import tqdm

from agent_attention.openmmlab.checkpoints import load_local
from agent_attention.openmmlab.errors import UserError
from agent_attention.openmmlab.files import describe_disk
from agent_attention.openmmlab.survive import newest_whole

INTERVAL = 4  # iterations between checkpoints: one epoch of the detector
STEPS = ("half written", "written", "flushed", "before the name", "named", "before a removal")


@dataclass
class Story:
    """What happened."""

    starts: int = 0
    kills: int = 0
    inside: dict[str, int] = field(default_factory=dict)  # kills inside a save, by step
    partial: int = 0  # kills that left a half-written file
    repeated: int = 0  # most iterations done twice after one kill
    full: int = 0
    problems: list[str] = field(default_factory=list)


@HOOKS.register_module(force=True)
class Progress(Hook):
    """Writes the number of finished iterations where the parent reads it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        Path(self.path).write_text(str(runner.iter + 1))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=["detection", "segmentation"], default="detection")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--full", type=int, default=0, metavar="N", help="saves on a full disk")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="of the data loader")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the kills' times")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    begun, story = time.monotonic(), Story()
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder, "disk")) as mounted:
        place = Path(folder, "disk")
        data = make_data(place / "data")

        # each process gains about one checkpoint, and the run must outlive all of them
        length = INTERVAL * (2 * args.kills + args.full + 8)

        def config(name: str) -> Config:
            return long_config(args.task, data, place / name, args.workers, length)

        chances = Random(args.seed)
        seconds = seconds_per_iteration(config("run"), story)
        for _ in tqdm(range(args.kills), desc="kills", file=sys.stderr):
            kill_once(config("run"), story, chances, 2 * INTERVAL * seconds)
        for number in tqdm(range(args.full), desc="full disks", file=sys.stderr):
            fill_once(config("run"), story, number, mounted)
        finish(config, story)
    print_row(args, story, mounted, time.monotonic() - begun)
    return int(bool(story.problems))


def long_config(task: str, data: Path, work_dir: Path, workers: int, length: int) -> Config:
    """A tiny run of at least ``length`` iterations that validates at the end only."""
    if task == "detection":
        settings: dict[str, Any] = {"train_cfg.max_epochs": length // INTERVAL}
        settings["train_cfg.val_interval"] = length
    else:
        settings = {"train_cfg.max_iters": length, "train_cfg.val_interval": length}
        settings["default_hooks.checkpoint.interval"] = INTERVAL
    cfg = tiny(task, data, work_dir, workers, **settings)
    cfg.log_level = "ERROR"
    cfg.custom_hooks.append({"type": "Progress", "path": str(work_dir / "progress")})
    return cfg


# ---- killing


def seconds_per_iteration(cfg: Config, story: Story) -> float:
    """How long an iteration takes, with its share of saving."""
    child = start(cfg, story)
    wait_for_progress(cfg, child, 1)
    begun, first = time.monotonic(), progress(cfg)
    wait_for_progress(cfg, child, first + 2 * INTERVAL)
    seconds, last = time.monotonic() - begun, progress(cfg)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return seconds / max(1, last - first)


def kill_once(cfg: Config, story: Story, chances: Random, longest: float) -> None:
    """Start a process that goes on with the run, kill it, and look at what it left.

    It dies in a save, or up to ``longest`` seconds after its first iteration.
    """
    inside = chances.random() < 0.5
    step, save = chances.choice(STEPS), chances.randrange(1, 3)
    child = start(cfg, story, (lambda: die_in_a_save(step, save)) if inside else None)
    if inside:
        _, status = os.waitpid(child, 0)
    else:
        wait_for_progress(cfg, child, 1)
        time.sleep(chances.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        story.kills += 1
        if inside:
            story.inside[step] = story.inside.get(step, 0) + 1
    else:
        story.problems.append(f"a process ended by itself, status {status}")
    story.partial += bool(list(Path(cfg.work_dir).glob("*.part")))
    inspect(cfg, story)


def start(cfg: Config, story: Story, prepare: Callable[[], None] | None = None) -> int:
    """Fork a process that goes on with the run: everything is imported already.

    Returns:
        Its process id.
    """
    story.starts += 1
    newest = newest_whole(cfg, story.problems.append)
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    Path(cfg.work_dir, "progress").write_text("0")
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgrp()
        silence()
        if prepare is not None:
            prepare()
        train(cfg, 1, newest)
        code = 0
    except UserError as error:
        Path(cfg.work_dir, "said").write_text(str(error))
        code = 1
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    os._exit(code)


def silence() -> None:
    """A child's chatter is not the parent's."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)


def wait_for_progress(cfg: Config, child: int, count: int) -> None:
    """Until the process has trained ``count`` iterations; it is killed if it takes minutes."""
    for _ in range(10000):
        if progress(cfg) >= count:
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)


def progress(cfg: Config) -> int:
    return int(Path(cfg.work_dir, "progress").read_text() or 0)


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


# ---- full disks


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


def fill_once(cfg: Config, story: Story, number: int, mounted: bool) -> None:
    """Go on with the run until a save finds the disk full, and look at what it left."""
    said, ballast = Path(cfg.work_dir, "said"), Path(cfg.work_dir, "ballast")
    said.unlink(missing_ok=True)
    if mounted:  # room for the logs, and for more and more of a checkpoint
        newest = newest_whole(cfg, story.problems.append)
        size = 2**20 if newest is None else newest.stat().st_size
        room = 400_000 + int(size * (number % 10) / 11)
        Path(cfg.work_dir).mkdir(exist_ok=True)
        ballast.write_bytes(bytes(shutil.disk_usage(cfg.work_dir).free - room))
    child = start(cfg, story, None if mounted else lambda: fail_when_full(number % 4 + 1))
    _, status = os.waitpid(child, 0)
    ballast.unlink(missing_ok=True)
    text = said.read_text() if said.is_file() else ""
    disk = describe_disk(Path(cfg.work_dir)).partition(" (")[0]
    if os.waitstatus_to_exitcode(status) != 1 or f"the disk {disk} (" not in text:
        story.problems.append(f"a full disk: exit {os.waitstatus_to_exitcode(status)}, {text!r}")
    story.full += 1
    inspect(cfg, story)


def fail_when_full(save: int) -> None:
    """Have the ``save``-th content of this process not fit, as a late flush says it."""
    real, made = os.fsync, [0]

    def fsync(handle: int) -> None:
        made[0] += 1
        if made[0] == 2 * save - 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    os.fsync = fsync  # type: ignore[assignment]


# ---- looking


def inspect(cfg: Config, story: Story) -> None:
    """What a process left must be whole, and not far behind."""
    damaged: list[str] = []
    newest = newest_whole(cfg, damaged.append)
    story.problems += damaged
    pointer = Path(cfg.work_dir, "last_checkpoint")
    if pointer.exists() and not Path(pointer.read_text()).is_file():
        story.problems.append(f"the pointer names {pointer.read_text()!r}, which is not there")
    saved = 0 if newest is None else int(load_local(str(newest))["meta"]["iter"])
    if progress(cfg):
        behind = progress(cfg) - saved
        story.repeated = max(story.repeated, behind)
        if behind > INTERVAL:
            story.problems.append(f"{behind} iterations are lost")


def finish(config: Callable[[str], Config], story: Story) -> None:
    """Let the run come to its end, and compare it with one that was never killed."""
    for name in ("run", "never killed"):
        cfg = config(name)
        _, status = os.waitpid(start(cfg, story), 0)
        if status:
            story.problems.append(f"{name}: the run did not finish, status {status}")
            return
    last = [newest_whole(config(name), print) for name in ("run", "never killed")]
    assert last[0] is not None and last[1] is not None
    found = difference(last[0], last[1])
    if last[0].name != last[1].name or found is not None:
        story.problems.append(f"the run ends differently: {found}")


def print_row(args: argparse.Namespace, story: Story, mounted: bool, seconds: float) -> None:
    inside = ", ".join(f"{step} {count}" for step, count in sorted(story.inside.items()))
    print(f"task                    {args.task}, {args.workers} workers")
    print(f"SIGKILLs                {story.kills} in {seconds:.0f} s")
    print(f"  inside a save         {sum(story.inside.values())} ({inside})")
    print(f"  leaving a part file   {story.partial}")
    how = (
        "a disk of memory that is full" if mounted else "calls that fail, no disk could be mounted"
    )
    print(f"saves on a full disk    {story.full} ({how})")
    print(f"iterations repeated     {story.repeated} at most, of {INTERVAL} between checkpoints")
    print(f"problems                {len(story.problems)}")
    for problem in story.problems[:20]:
        print(f"  {problem}")


if __name__ == "__main__":
    sys.exit(main())
