"""The demo: generate data, train and test both demo models, show a table and a picture.

    python tools/demo.py

Finished trainings are kept in work_dirs/demo and not repeated as long as nothing they depend on
has changed. The full logs are beside the checkpoints.
"""

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data" / "demo"
OUT = ROOT / "work_dirs" / "demo"
FOLDERS = ("agent_attention", "mmengine_agent", "mmdet_agent", "mmseg_agent", "configs", "tools")
PICTURES = 4  # scenes of each task on the final picture
PROGRESS = re.compile(r"(?:\[(\d+)\])?\[ *(\d+)/(\d+)\].* eta: (\S+) .* loss: ([\d.]+)")


class Task(NamedTuple):
    """One of the two models."""

    title: str
    config: str
    metrics: dict[str, tuple[str, float]]  # name in the table: key in metrics.json, factor to it

    @property
    def folder(self) -> Path:
        return OUT / Path(self.config).stem


TASKS = (
    Task(
        "Mask R-CNN",
        "configs/demo/agent_pvt_maskrcnn_demo.py",
        {
            "box AP": ("coco/bbox_mAP", 1),
            "box AP50": ("coco/bbox_mAP_50", 1),
            "mask AP": ("coco/segm_mAP", 1),
        },
    ),
    Task(
        "Semantic FPN",
        "configs/demo/agent_pvt_semantic_fpn_demo.py",
        {"mIoU": ("mIoU", 0.01)},  # mmseg gives per cent
    ),
)


def main() -> int:
    started = time.time()
    run("tools/make_demo_data.py", str(DATA), log=None)
    rows = [row for task in TASKS for row in run_task(task)]
    picture = draw([next_picture for task in TASKS for next_picture in pictures(task)])
    print_table(rows, time.time() - started)
    print(f"predictions (left: truth, right: prediction): {picture.relative_to(ROOT)}")
    return 0


def run_task(task: Task) -> list[tuple[str, str, str]]:
    """Train and test, unless that is done already; the rows (model, metric, value) of the table."""
    task.folder.mkdir(parents=True, exist_ok=True)
    stamp, wanted = task.folder / "stamp", fingerprint(task)
    if not stamp.exists() or stamp.read_text() != wanted:
        stamp.unlink(missing_ok=True)
        started = time.time()
        print(f"{task.title} with Agent-PVT-T: training ({task.config})", flush=True)
        run("tools/train.py", task.config, "--work-dir", str(task.folder), log="train.log")
        print(f"{task.title} with Agent-PVT-T: testing", flush=True)
        checkpoint = (task.folder / "last_checkpoint").read_text()
        pictures_folder = str(task.folder / "pictures")
        test = ("tools/test.py", task.config, checkpoint, "--work-dir", str(task.folder))
        run(*test, "--show-dir", pictures_folder, log="test.log")
        (task.folder / "seconds").write_text(f"{time.time() - started:.0f}")
        stamp.write_text(wanted)
    else:
        print(f"{task.title} with Agent-PVT-T: trained before (rm -r {task.folder} to repeat)")
    found = json.loads((task.folder / "metrics.json").read_text())["metrics"]
    rows = [(task.title, name, f"{found[k] * f:.3f}") for name, (k, f) in task.metrics.items()]
    return [*rows, (task.title, "seconds", (task.folder / "seconds").read_text())]


def fingerprint(task: Task) -> str:
    """Changes whenever the code, the configs or the data that a training depends on change."""
    digest = hashlib.sha256((DATA / "demo.json").read_bytes() + task.config.encode())
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def run(script: str, *arguments: str, log: str | None) -> None:
    """Run one of our tools; its output goes to a log in the work directory, progress to the screen.

    Exits with the tool's own code if it fails.
    """
    command = [sys.executable, "-u", "-W", "ignore", str(ROOT / script), *arguments]
    if log is None:
        code = subprocess.run(command, cwd=ROOT).returncode
        tail: list[str] = []
    else:
        path = Path(arguments[arguments.index("--work-dir") + 1], log)
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            tail = follow(process.stdout, path)
        code = process.returncode
    if code:
        print(*tail, f"error: {script} failed", sep="\n", file=sys.stderr)
        sys.exit(code)


def follow(lines: Iterator[str], path: Path) -> list[str]:
    """Write lines to a file and show progress; the last lines."""
    tail: list[str] = []
    with path.open("w", buffering=1) as file:
        for line in lines:
            file.write(line)
            tail = [*tail[-19:], line.rstrip()]
            found = PROGRESS.search(line) if "(train)" in line else None
            if found:
                epoch, step, steps, eta, loss = found.groups()
                where = f"epoch {epoch}, " if epoch else ""
                print(f"  {where}iteration {step} of {steps}, loss {loss}, {eta} left", flush=True)
    return tail


def pictures(task: Task) -> list[Path]:
    """Pictures that testing drew; the first two scenes are the odd ones, with a crowd and empty."""
    folder = task.folder / "pictures"
    found = sorted(path for path in folder.rglob("*.*") if path.suffix in (".jpg", ".png"))
    return found[2 : 2 + PICTURES]


def draw(paths: list[Path], height: int = 320) -> Path:
    """Set pictures of one height in two columns; the path of the PNG."""
    images = [mmcv.imread(path) for path in paths]
    images = [mmcv.imresize(i, (i.shape[1] * height // i.shape[0], height)) for i in images]
    cell = (height + 8, max(image.shape[1] for image in images) + 8)
    cells = [mmcv.impad(image, shape=cell, pad_val=(255, 255, 255)) for image in images]
    half = len(cells) // 2
    path = OUT / "predictions.png"
    mmcv.imwrite(np.hstack([np.vstack(cells[:half]), np.vstack(cells[half:])]), str(path))
    return path


def print_table(rows: list[tuple[str, str, str]], seconds: float) -> None:
    print()
    for row in rows:
        print("  {:<14}{:<10}{:>8}".format(*row))
    print(f"  {'in all':<14}{'seconds':<10}{seconds:>8.0f}\n")


if __name__ == "__main__":
    sys.exit(main())
