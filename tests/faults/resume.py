"""Stop trainings after every iteration, go on, and compare with one that was never stopped.

    python tests/faults/resume.py
    python tests/faults/resume.py --task detection --workers 0 --stops 3 4

The tasks of tiny_tasks.py get SIGTERM or SIGINT. Two of the demo, with averaged weights and a step
for each two iterations, get it in each of their iterations, without and with workers. Two published
recipes at small size, with two workers, get it before, at and after the end of the warm-up and the
milestones, and in the middle of an epoch. The run that goes on, in a process with other random
states, must end with the same weights, averages, optimizer, schedules, random states, losses and
metrics, bit for bit. Prints a row of a table; exit code 1 if a promise was broken.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from mmengine.config import Config
from mmengine.runner import Runner
from stop_hooks import add_hook, scramble
from tiny_runs import TIMES, difference, make_data, start_quickly, tiny, train
from tiny_tasks import TASKS, last_checkpoint
from tqdm import tqdm

from mmengine_agent.resume.newest import newest_whole
from mmengine_agent.run.exit import RESUME_ME


def run(
    task: str, workers: Sequence[int], stops: Sequence[int], length: int | None = None
) -> list[str]:
    """What differs after stopping after each of ``stops`` iterations, of ``length`` ones."""
    last = last_checkpoint(task, length)
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        data, whole = make_data(Path(folder, "data")), Path(folder, "whole")
        metrics = metrics_of(train(config(task, data, whole, 0, length), seed=1))
        start_quickly()
        assert any("mAP" in name or "mIoU" in name for name in metrics)
        for count in workers:
            for stop in tqdm(stops, desc=f"{task}, {count} workers"):
                work_dir = Path(folder, f"{count}_{stop}")
                make = partial(config, task, data, work_dir, count, length)
                runner = stop_and_go_on(make, stop)
                found = difference(work_dir / last, whole / last)
                if metrics_of(runner) != metrics:
                    found = found or "metrics"
                if found:
                    problems.append(f"{task}, {count} workers, stopped after {stop}: {found}")
    return problems


def config(task: str, data: Path, work_dir: Path, workers: int, length: int | None) -> Config:
    cfg = tiny(task, data, work_dir, workers, length, **TASKS[task].tried)
    cfg.log_level = "ERROR"
    return cfg


def stop_and_go_on(make: Callable[[], Config], stop: int) -> Runner:
    """Stop in an iteration, and train the rest."""
    number = (signal.SIGTERM, signal.SIGINT)[stop % 2]
    try:
        train(add_hook(make(), "SendSignal", number=number, iteration=stop), seed=1)
    except SystemExit as end:
        assert end.code == RESUME_ME
    else:
        raise AssertionError(f"not stopped after {stop} iterations")
    scramble()
    cfg = make()
    return train(cfg, resume=newest_whole(cfg, print))


def metrics_of(runner: Runner) -> dict[str, list[Any]]:
    """All that was logged, losses and metrics, but the times; as text, where nan is nan."""
    logs = runner.message_hub.log_scalars
    names = [name for name in logs if name.split("/")[-1] not in TIMES]
    return {name: list(map(str, logs[name].data[0])) for name in sorted(names)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, help="default: all")
    parser.add_argument("--workers", type=int, nargs="+", metavar="N", help="default: the task's")
    parser.add_argument(
        "--stops", type=int, nargs="+", metavar="N", help="after N iterations; default: the task's"
    )
    args = parser.parse_args()
    begun = time.monotonic()
    problems, count = [], 0
    for task in [args.task] if args.task else TASKS:
        workers, stops = args.workers or TASKS[task].workers, args.stops or TASKS[task].stops
        with redirect_stdout(sys.stderr):  # what pycocotools says
            problems += run(task, workers, stops)
        count += len(workers) * len(stops)
    what = f"resumed against uninterrupted: {args.task or ', '.join(TASKS)}, {count} stops"
    wanted = "weights, averages, optimizer, losses and metrics bit-identical"
    found = "; ".join(problems) or f"{count} of {count} identical"
    print(f"| {what} | {wanted} | {found}; {time.monotonic() - begun:.0f} s |")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
