"""Train for long with images of changing sizes, and see that memory and time do not grow.

    python tests/faults/long_run.py --iterations 2000

A tiny detector is trained and validated on images that are resized at random to hundreds of sizes.
Sampled are the resident memory of the trainer and of its data loaders' workers, and the processor
time that each spends on a batch, which other work on the machine does not change much. The last
quarter of the run is compared with the second one: memory may grow by some megabytes, times by some
percent. Prints a row of a table; exit code 1 if one grew by more.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from tiny_runs import make_data, tiny, train
from tqdm import tqdm

EVERY = 10  # iterations between samples
EPOCH = 4  # iterations
PAGE, TICK = resource.getpagesize() / 2**20, 1 / os.sysconf("SC_CLK_TCK")


@dataclass
class Sample:
    """Megabytes that are resident, and seconds of processor time until now."""

    trainer: float
    workers: float
    trainer_seconds: float
    workers_seconds: float


@HOOKS.register_module(force=True)
class Watch(Hook):
    """Samples after some iterations; a config is copied, so they are of the class."""

    samples: ClassVar[list[Sample]] = []
    bar: ClassVar[Any] = None

    def after_train_iter(self, runner: Any, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        self.bar.update()
        if (runner.iter + 1) % EVERY == 0:
            workers = [child.pid for child in active_children() if child.pid]
            mine, theirs = measured(os.getpid()), list(map(measured, workers))
            memory, seconds = (sum(each[part] for each in theirs) for part in (0, 1))
            self.samples.append(Sample(mine[0], memory, mine[1], seconds))


def measured(pid: int) -> tuple[float, float]:
    """Resident megabytes and processor seconds of a process."""
    folder = Path("/proc", str(pid))
    pages = int((folder / "statm").read_text().split()[1])
    words = (folder / "stat").read_text().rpartition(")")[2].split()
    return pages * PAGE, (int(words[11]) + int(words[12])) * TICK


def run(iterations: int, workers: int) -> list[Sample]:
    """The samples of a training."""
    Watch.samples.clear()
    with tempfile.TemporaryDirectory() as name, tqdm(total=iterations, desc="iterations") as bar:
        folder = Path(name)
        cfg = config(make_data(folder / "data"), folder / "run", iterations, workers)
        cfg.log_level = "ERROR"
        cfg.custom_hooks.append({"type": "Watch"})
        Watch.bar = bar
        train(cfg, seed=1)
    return list(Watch.samples)


def config(data: Path, work_dir: Path, iterations: int, workers: int) -> Config:
    """Ten validations and checkpoints; all images of random sizes."""
    epochs = iterations // EPOCH
    settings = {
        "train_cfg.max_epochs": epochs,
        "train_cfg.val_interval": max(1, epochs // 10),
        "default_hooks.checkpoint.interval": max(1, epochs // 10),
        "default_hooks.logger.interval": 50,
    }
    cfg = tiny("detection", data, work_dir, workers, **settings)
    resize = {"type": "RandomResize", "scale": (96, 96), "ratio_range": (0.5, 2.0)}
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        steps = loader.dataset.pipeline
        place = next(at for at, step in enumerate(steps) if "Resize" in step["type"])
        steps[place] = {**resize, "keep_ratio": True}
    return cfg


def grown(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """Second and last quarter: megabytes, and milliseconds of processor time for an iteration."""
    quarter = len(samples) // 4
    parts = samples[quarter : 2 * quarter], samples[-quarter:]
    found = {}
    for name in ("trainer", "workers"):
        found[f"{name} MB"] = tuple(median(getattr(s, name) for s in part) for part in parts)
        found[f"{name} ms"] = tuple(_pace(part, f"{name}_seconds") for part in parts)
    return found  # type: ignore[return-value]


def _pace(part: list[Sample], name: str) -> float:
    spent = getattr(part[-1], name) - getattr(part[0], name)
    return 1000 * spent / (EVERY * (len(part) - 1))


def too_much(name: str, before: float, after: float, megabytes: float, percent: float) -> bool:
    grown = after - before
    return grown > megabytes if name.endswith("MB") else grown > before * percent / 100


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=2000, metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--megabytes", type=float, default=8, help="of growth: %(default)s")
    parser.add_argument("--percent", type=float, default=15, help="of time: %(default)s")
    args = parser.parse_args()
    begun = time.monotonic()
    with redirect_stdout(sys.stderr):  # what pycocotools says
        samples = run(args.iterations, args.workers)
    found = grown(samples)
    for sample in samples[:: max(1, len(samples) // 20)]:
        print(sample, file=sys.stderr)
    limits = args.megabytes, args.percent
    bad = [name for name, pair in found.items() if too_much(name, *pair, *limits)]
    told = ", ".join(f"{name} {pair[0]:.1f} → {pair[1]:.1f}" for name, pair in found.items())
    told = f"grew: {', '.join(bad)} ({told})" if bad else told
    what = f"{args.iterations} iterations with changing image sizes, {args.workers} workers"
    wanted = "memory, and processor time a batch, flat (second → last quarter)"
    print(f"| {what} | {wanted} | {told}; {time.monotonic() - begun:.0f} s |")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
