"""Trainings of several processes in which one is killed, raises or stalls; evaluation on 1 to 3.

    python tests/faults/processes.py                  # everything
    python tests/faults/processes.py kills --kills 3

A tiny model is trained through tools/dist_train.sh, on CPU processes over gloo. Prints the rows of
a table; exit code 1 if a promise was broken.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_runs import LAST, difference, make_data, tiny
from tiny_tasks import DEMOS, TASKS

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
Row = tuple[str, str, str]  # fault, wanted, found
TIMEOUT = 10  # seconds a process waits for another, in the run where one stalls


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("only", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--kills", type=int, default=10, metavar="N", help="default: %(default)s")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    broken = False
    with tempfile.TemporaryDirectory() as scratch:
        data = make_data(Path(scratch, "data"))
        for name in args.only or ROWS:
            rows, problems = ROWS[name](data, Path(scratch, name), args.kills)
            for row in rows:
                print("| " + " | ".join(row) + " |", flush=True)
            print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
            broken |= bool(problems)
    return int(broken)


# ---- running


def write_config(task: str, data: Path, folder: Path, faults: list[Any], **settings: Any) -> Path:
    """A tiny config with faults, as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    cfg = tiny(task, data, folder, **settings)
    cfg.custom_imports = {
        "imports": [TASKS[task].package, "fault_hook"],
        "allow_failed_imports": False,
    }
    cfg.custom_hooks.append({"type": "FaultHook", "faults": faults, "folder": str(folder)})
    cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    cfg.randomness = {"seed": 1}
    path = folder / "config.py"
    cfg.dump(path)
    return path


def bash(script: str, *arguments: Any, seconds: float = 300, **environment: str) -> Any:
    """Run a script of tools/ to its end; its output, exit code, and how long it took."""
    paths = os.pathsep.join([str(ROOT), str(TESTS), str(TESTS / "faults")])
    known = {"PYTHON": sys.executable, **os.environ, "PYTHONPATH": paths, **environment}
    command = ["bash", str(ROOT / "tools" / script), *map(str, arguments)]
    begun = time.time()
    done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=seconds)
    return argparse.Namespace(
        code=done.returncode, out=done.stdout, err=done.stderr, begun=begun, ended=time.time()
    )


def train(config: Path, processes: int, *flags: str, **environment: str) -> Any:
    work_dir = ("--work-dir", config.parent / "run")
    return bash("dist_train.sh", config, processes, *work_dir, *flags, **environment)


# ---- kills


def kills(data: Path, folder: Path, count: int) -> tuple[list[Row], list[str]]:
    """Kill random workers of one run under MAX_RESTARTS, and compare its end with another's."""
    chances = Random(0)
    length = 4 * count + 8
    settings = {
        "train_cfg.max_iters": length,
        "train_cfg.val_interval": length,
        "default_hooks.checkpoint.interval": 3,
    }
    places = sorted(chances.sample(range(2, length), count))
    faults = [(place, chances.randrange(2), "kill") for place in places]
    ends = []
    for name, what in (("killed", faults), ("alone", [])):
        config = write_config("segmentation", data, folder / name, what, **settings)
        done = train(config, 2, MAX_RESTARTS=str(count))
        ends.append(config.parent / f"run/iter_{length}.pth")
        if done.code:
            return [], [f"{name}: exit {done.code}\n{done.err[-3000:]}"]
    happened = len(list((folder / "killed").glob("fault.*")))
    found = difference(*ends)
    same = metrics(ends[0].parent) == metrics(ends[1].parent)
    problems = [] if found is None else [f"the killed run ends differently: {found}"]
    problems += [] if happened == count else [f"only {happened} kills"]
    problems += [] if same else ["the killed run has other metrics"]
    found = "broken" if problems else "finished by itself, weights and metrics bit-identical"
    return [(f"{happened} worker kills, MAX_RESTARTS", "finishes, same metric", found)], problems


def metrics(work_dir: Path) -> dict[str, float]:
    """The scores of the last validation in a work directory's logs."""
    found: dict[str, float] = {}
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in map(json.loads, path.read_text().splitlines()):
            if "mIoU" in line:
                found = {key: line[key] for key in ("mIoU", "aAcc", "mAcc", "step")}
    assert found, f"no scores in {work_dir}"
    return found


# ---- one raises, one stalls


def failures(data: Path, folder: Path, _: int) -> tuple[list[Row], list[str]]:
    """A process that raises, or no longer answers, in a run of two."""
    rows, problems = [], []
    for what, rank, limit in (("raise", 1, 60), ("raise", 0, 60), ("stall", 1, TIMEOUT + 60)):
        config = write_config("segmentation", data, folder / f"{what}{rank}", [(3, rank, what)])
        done = train(config, 2, "--cfg-options", f"env_cfg.dist_cfg.timeout={TIMEOUT}")
        since = done.ended - float((config.parent / "fault.3").read_text())
        errors = re.findall(r"^error in process .*", done.err, re.M)
        reporter = rank if what == "raise" else 0
        wanted = "a fault of process" if what == "raise" else "env_cfg.dist_cfg.timeout"
        first = errors[0] if errors else "nothing"
        last = re.findall(r"^(?:ArithmeticError|RuntimeError): .*", done.err, re.M)
        good = done.code == 1 and since < limit and wanted in done.err
        good &= len(errors) == 1 and f"error in process {reporter} of 2" in first
        if not good:
            problems.append(f"{what} {rank}: exit {done.code}, {since:.0f} s\n{done.err[-4000:]}")
        report = " ".join([first.partition(": Traceback")[0], *last[:1]])
        found = f"ends after {since:.0f} s, exit {done.code}, first: `{report[:80]}`"
        rows.append((f"process {rank} of 2: {what}", f"ends within {limit} s, error first", found))
    return rows, problems


def second(data: Path, folder: Path, _: int) -> tuple[list[Row], list[str]]:
    """A training that is begun in the work directory of another, which goes on."""
    config = write_config("segmentation", data, folder, [], **{"train_cfg.max_iters": 40})
    with ThreadPoolExecutor() as pool:
        first = pool.submit(train, config, 2)
        while not (folder / "run/training.lock").exists() and not first.done():
            time.sleep(0.1)
        other = train(config, 1)
    refused = re.search(r"^error: .*another training writes there.*", other.err, re.M)
    good = other.code == 1 and refused is not None and first.result().code == 0
    found = f"refused, exit {other.code}; the first ends with {first.result().code}"
    problems = [] if good else [f"{found}\n{other.err[-2000:]}\n{first.result().err[-2000:]}"]
    return [
        ("a second run in the same work directory", "refused, the first goes on", found)
    ], problems


# ---- evaluation


def evaluation(data: Path, folder: Path, _: int) -> tuple[list[Row], list[str]]:
    """The scores of 1, 2 and 3 processes, of seven images and of two."""
    rows, problems = [], []
    for task in DEMOS:
        config = write_config(task, data, folder / task, [])
        done = train(config, 1)
        if done.code:
            return rows, [f"{task}: {done.err[-3000:]}"]
        checkpoint = config.parent / "run" / LAST[task]
        for indices in ("8", "2"):
            found = [_scores(config, checkpoint, count, data, indices) for count in (1, 2, 3)]
            same = found[0] == found[1] == found[2] and len(found[0]) > 1
            problems += [] if same else [f"{task}, {indices} images: {found}"]
            names = f"{len(found[0])} metrics {'identical' if same else 'DIFFER'}"
            what = f"evaluation, {task}, {indices} images on 1, 2, 3 processes"
            rows.append((what, "identical metrics", names))
    return rows, problems


def _scores(config: Path, checkpoint: Path, processes: int, data: Path, images: str) -> Any:
    """Metrics as tools/test.py writes them, on the training images: there are eight."""
    place = config.parent / f"test{processes}.{images}"
    where = {
        "test_dataloader.dataset.data_prefix.img": "train",
        "test_dataloader.dataset.ann_file": "train.json",
        "test_evaluator.ann_file": data / "train.json",
    }
    if "segmentation" in str(config):
        where = {
            "test_dataloader.dataset.data_prefix.img_path": "train",
            "test_dataloader.dataset.data_prefix.seg_map_path": "train_labels",
        }
    where["test_dataloader.dataset.data_root"] = data
    where["test_dataloader.dataset.indices"] = images
    options = [f"{key}={value}" for key, value in where.items()]
    flags = ("--work-dir", place, "--cfg-options", *options)
    done = bash("dist_test.sh", config, checkpoint, processes, *flags)
    if done.code:
        return done.err[-3000:]
    return json.loads((place / "metrics.json").read_text())["metrics"]


ROWS: dict[str, Callable[[Path, Path, int], tuple[list[Row], list[str]]]] = {
    "kills": kills,
    "failures": failures,
    "second": second,
    "evaluation": evaluation,
}

if __name__ == "__main__":
    sys.exit(main())
