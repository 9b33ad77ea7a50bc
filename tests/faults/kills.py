"""Kill a training again and again, fill its disk, set its clock, and see that nothing is lost.

    python tests/faults/kills.py --kills 200 --full 20
    python tests/faults/kills.py --task upernet-recipe --kills 20 --full 0 --workers 4

The tasks of tiny_tasks.py, two of the demo and two published recipes at small size, are trained
through mmengine's Runner with the toolkit's hooks, the recipes with two worker processes for each
data loader. SIGKILL ends the processes: every second one inside a save, at one of its steps, the
others at a random moment; half of them from the beginning of the run on, and half around the
milestones of its learning rate. Each process sees a clock of its own, a day off or right. After
each kill the newest checkpoint must be whole, the pointer must name one that is there, and the next
process goes on with it. At the end the weights are compared with those of a run that was never
killed. With --full the disk is full during that many saves: a small one of memory where the system
lets us mount one, else calls that fail.

Prints rows of a table; exit code 1 if a promise was broken.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a pool of threads does not survive a fork
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from disk_faults import STEPS, die_in_a_save, fail_when_full, set_clock, small_disk
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny_runs import difference, make_data, start_quickly, tiny, toy, train
from tiny_tasks import EPOCH, RECIPES, TASKS
from tqdm import tqdm

from mmengine_agent.checkpoints import load_local
from mmengine_agent.errors import UserError
from mmengine_agent.files import describe_disk
from mmengine_agent.resume.newest import newest_whole

INTERVAL = EPOCH  # iterations between checkpoints
SPARE = 8  # checkpoints of a run beyond those that its kills and full disks need
LATER = 0.6  # of a run: where the second half of the kills begins; 2/3 and 11/12 are milestones
WORKERS = 2  # of each data loader of a recipe
DAY = 86400
LONGEST = 300  # seconds that a process may take to its end


@dataclass
class Story:
    """What happened."""

    kills: int = 0
    inside: dict[str, int] = field(default_factory=dict)  # kills inside a save, by step
    partial: int = 0  # kills that left a half-written file
    repeated: int = 0  # most iterations done twice after one kill
    reached: float = 0.0  # of the run, at the last kill
    full: int = 0
    mounted: bool = False
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
    parser.add_argument("--task", choices=[*TASKS, "toy"], help="default: all but the toy")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--full", type=int, default=20, metavar="N", help="saves on a full disk: %(default)s"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="of each data loader: 0, of a recipe 2"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the kills' times")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    begun = time.monotonic()
    tasks = [args.task] if args.task else list(TASKS)
    counts = args.kills // len(tasks), args.full // len(tasks)
    stories = [run(task, *counts, args.workers, args.seed) for task in tasks]
    print_rows(tasks, stories, time.monotonic() - begun)
    return int(any(story.problems for story in stories))


def run(
    task: str,
    kills: int,
    full: int,
    workers: int | None = None,
    seed: int = 0,
    spare: int = SPARE,
) -> Story:
    """Train to the end through that many kills and full disks, and ``spare`` checkpoints more."""
    if workers is None:
        workers = WORKERS if task in RECIPES else 0
    story, chances = Story(), Random(seed)
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder, "disk")) as mounted:
        place = Path(folder, "disk")
        story.mounted = mounted and task != "toy"  # its checkpoints are smaller than its logs
        data = make_data(place / "data")

        # each process gains about one checkpoint, and the run must outlive all of them
        length = INTERVAL * (2 * kills + full + spare)

        def config(name: str) -> Config:
            return long_config(task, data, place / name, workers, length)

        with redirect_stdout(sys.stderr):  # what is imported late need not be in each process
            train(long_config(task, data, place / "first", 0, 2 * INTERVAL))
        start_quickly()
        seconds = seconds_per_iteration(config("run"), story)
        for number in tqdm(range(kills), desc=f"{task}: kills"):
            if number == kills // 2:
                train_until(config("run"), story, int(LATER * length))
            step = STEPS[number // 2 % len(STEPS)] if number % 2 else None
            kill_once(config("run"), story, chances, step, 2 * INTERVAL * seconds)
            story.reached = max(story.reached, progress(config("run")) / length)
        for number in tqdm(range(full), desc=f"{task}: full disks"):
            fill_once(config("run"), story, number, story.mounted)
        finish(config, story)
    return story


def long_config(task: str, data: Path, work_dir: Path, workers: int, length: int) -> Config:
    """A tiny run of at least ``length`` iterations, saved after each ``INTERVAL`` of them.

    A recipe validates as often as it is published, ten or twelve times; the others at their end.
    """
    settings: dict[str, Any] = {} if task in RECIPES else {"train_cfg.val_interval": length}
    if task == "toy":
        settings |= {"train_cfg.max_iters": length, "default_hooks.checkpoint.interval": INTERVAL}
        cfg = toy(work_dir, by_epoch=False, workers=workers, **settings)
    else:
        every = 1 if TASKS[task].by_epoch else INTERVAL
        settings |= {
            "default_hooks.checkpoint.interval": every,
            "default_hooks.checkpoint.max_keep_ckpts": 1,  # so that each save removes one
        }
        cfg = tiny(task, data, work_dir, workers, length, **settings)
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
    wait_for_end(child, story)
    return seconds / max(1, last - first)


def train_until(cfg: Config, story: Story, iteration: int) -> None:
    """Go on with the run until about an iteration."""
    child = start(cfg, story)
    wait_for_progress(cfg, child, iteration)
    os.kill(child, signal.SIGKILL)
    wait_for_end(child, story)
    inspect(cfg, story)


def kill_once(cfg: Config, story: Story, chances: Random, step: str | None, longest: float) -> None:
    """Start a process that goes on with the run, kill it, and look at what it left.

    It dies at a step of a save, or up to ``longest`` seconds after its first iteration.
    """
    save, clock = chances.randrange(1, 3), chances.choice((0, 0, -DAY, DAY))

    def prepare() -> None:
        set_clock(clock)
        if step is not None:
            die_in_a_save(step, save)

    child = start(cfg, story, prepare)
    if step is None:
        wait_for_progress(cfg, child, 1)
        time.sleep(chances.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
    status = wait_for_end(child, story)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        story.kills += 1
        if step is not None:
            story.inside[step] = story.inside.get(step, 0) + 1
    else:
        story.problems.append(f"a process ended by itself, status {status}: {last_words(cfg)}")
    story.partial += bool(list(Path(cfg.work_dir).glob("*.part")))
    inspect(cfg, story)


def start(cfg: Config, story: Story, prepare: Callable[[], None] = lambda: None) -> int:
    """Fork a process that goes on with the run: everything is imported already.

    Returns:
        Its process id.
    """
    newest = newest_whole(cfg, story.problems.append)
    Path(cfg.work_dir).mkdir(parents=True, exist_ok=True)
    Path(cfg.work_dir, "progress").write_text("0")
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgrp()
        keep_output(cfg)
        prepare()
        train(cfg, 1, newest)
        code = 0
    except UserError as error:
        Path(cfg.work_dir, "said").write_text(str(error))
        code = 1
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    os._exit(code)


def keep_output(cfg: Config) -> None:
    """What a child says is of interest only when it fails."""
    handle = os.open(Path(cfg.work_dir, "output"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(handle, number)


def last_words(cfg: Config) -> str:
    """The last line that a child said."""
    lines = Path(cfg.work_dir, "output").read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def wait_for_progress(cfg: Config, child: int, count: int) -> None:
    """Until the process has trained ``count`` iterations; it is killed if it takes minutes."""
    for _ in range(10000):
        if progress(cfg) >= count:
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)


def wait_for_end(child: int, story: Story, seconds: int = LONGEST) -> int:
    """The status with which a process ended; one that hangs is killed, and is a problem."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    story.problems.append(f"process {child} did not end within {seconds} s and was killed")
    return os.waitpid(child, 0)[1]


def progress(cfg: Config) -> int:
    return int(Path(cfg.work_dir, "progress").read_text() or 0)


# ---- full disks


def fill_once(cfg: Config, story: Story, number: int, mounted: bool) -> None:
    """Go on with the run until a save finds the disk full, and look at what it left."""
    said, ballast = Path(cfg.work_dir, "said"), Path(cfg.work_dir, "ballast")
    said.unlink(missing_ok=True)
    if mounted:
        cfg.custom_hooks.append({"type": "FillDisk", "part": number % 10 / 11})
    child = start(cfg, story, lambda: None if mounted else fail_when_full(number % 4 + 1))
    status = wait_for_end(child, story)
    ballast.unlink(missing_ok=True)
    text = said.read_text() if said.is_file() else ""
    disk = describe_disk(Path(cfg.work_dir)).partition(" (")[0]
    if os.waitstatus_to_exitcode(status) != 1 or f"the disk {disk} (" not in text:
        code = os.waitstatus_to_exitcode(status)
        story.problems.append(f"a full disk: exit {code}, {text!r}, {last_words(cfg)}")
    story.full += 1
    inspect(cfg, story)


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
        status = wait_for_end(start(cfg, story), story, 4 * LONGEST)
        if status:
            story.problems.append(f"{name}: not finished, status {status}: {last_words(cfg)}")
            return
    last = [newest_whole(config(name), print) for name in ("run", "never killed")]
    assert last[0] is not None and last[1] is not None
    found = difference(last[0], last[1])
    if last[0].name != last[1].name or found is not None:
        story.problems.append(f"the run ends differently: {found}")


def print_rows(tasks: Sequence[str], stories: list[Story], seconds: float) -> None:
    """One for the kills, one for the full disks."""
    inside = sum((Counter(story.inside) for story in stories), Counter())
    problems = [problem for story in stories for problem in story.problems]
    wanted = "ends as if never killed, the newest always whole, at most one interval repeated"
    repeated = max(story.repeated for story in stories)
    found = (
        f"{'; '.join(problems[:9]) or 'as wanted'}: {repeated} of {INTERVAL} iterations repeated"
    )
    found += f", {sum(story.partial for story in stories)} half-written files, {seconds:.0f} s"
    kills = sum(story.kills for story in stories)
    reached = "-".join(f"{100 * end(each.reached for each in stories):.0f}" for end in (min, max))
    found += f", the last kills after {reached} % of the runs"
    steps = ", ".join(f"{step} {inside[step]}" for step in STEPS if inside[step])
    what = f"{kills} SIGKILLs ({', '.join(tasks)}), {sum(inside.values())} inside a save"
    print(f"| {what} ({steps}), the clock set each time | {wanted} | {found} |")
    if full := sum(story.full for story in stories):
        how = "a small disk in memory" if stories[0].mounted else "calls that fail"
        answer = f"{len(problems)} problems" if problems else "as wanted"
        print(f"| disk full during {full} saves ({how}) | resumable, the disk named | {answer} |")


if __name__ == "__main__":
    sys.exit(main())
