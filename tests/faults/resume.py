"""Stop trainings after every iteration, go on, and compare with one that was never stopped.

    python tests/faults/resume.py
    python tests/faults/resume.py --task detection --workers 0 --stops 3 4

A tiny detector (two epochs) and a tiny segmentor (by iterations), with random augmentations and
dropped paths, averaged weights and a step for each two iterations, get SIGTERM or SIGINT in each of
their iterations, without and with workers. The run that goes on, in a process with other random
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
from tiny_runs import LAST, TIMES, difference, make_data, tiny, train
from tqdm import tqdm

from mmengine_agent.resume.newest import newest_whole
from mmengine_agent.run.exit import RESUME_ME

TASKS = ("detection", "segmentation")
LENGTH = 8  # iterations of both


def run(task: str, workers: Sequence[int], stops: Sequence[int]) -> list[str]:
    """What differs after stopping after each of ``stops`` iterations."""
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        data, whole = make_data(Path(folder, "data")), Path(folder, "whole")
        metrics = metrics_of(train(config(task, data, whole, 0), seed=1))
        assert any("mAP" in name or "mIoU" in name for name in metrics)
        for count in workers:
            for stop in tqdm(stops, desc=f"{task}, {count} workers"):
                work_dir = Path(folder, f"{count}_{stop}")
                make = partial(config, task, data, work_dir, count)
                runner = stop_and_go_on(make, stop)
                found = difference(work_dir / LAST[task], whole / LAST[task])
                if metrics_of(runner) != metrics:
                    found = found or "metrics"
                if found:
                    problems.append(f"{task}, {count} workers, stopped after {stop}: {found}")
    return problems


def config(task: str, data: Path, work_dir: Path, workers: int) -> Config:
    cfg = tiny(task, data, work_dir, workers, **{"optim_wrapper.accumulative_counts": 2})
    cfg.log_level = "ERROR"
    return cfg


def stop_and_go_on(make: Callable[[], Config], stop: int) -> Runner:
    """Stop in an iteration, and train the rest."""
    number = (signal.SIGTERM, signal.SIGINT)[stop % 2]
    try:
        train(add_hook(make(), "SendSignal", number=number, iteration=stop), seed=1)
    except SystemExit as end:
        assert end.code == RESUME_ME
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
    parser.add_argument("--task", choices=TASKS, help="default: both")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], metavar="N")
    parser.add_argument(
        "--stops", type=int, nargs="+", default=list(range(1, LENGTH)), metavar="N", help="after N"
    )
    args = parser.parse_args()
    begun = time.monotonic()
    tasks = [args.task] if args.task else TASKS
    with redirect_stdout(sys.stderr):  # what pycocotools says
        problems = [each for task in tasks for each in run(task, args.workers, args.stops)]
    count = len(tasks) * len(args.workers) * len(args.stops)
    what = f"resumed against uninterrupted: {' and '.join(tasks)}, {count} stops in all iterations"
    wanted = "weights, averages, optimizer, losses and metrics bit-identical"
    found = "; ".join(problems) or f"{count} of {count} identical"
    print(f"| {what} | {wanted} | {found}; {time.monotonic() - begun:.0f} s |")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
