"""The demo: generate data, train and test both demo models, show a table and a picture.

    python tools/demo.py

A model that has been trained and tested is not trained again while its folder in work_dirs/demo
is there, which also has the full logs.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DATA, OUT = ROOT / "data/demo", ROOT / "work_dirs/demo"
PICTURES = slice(2, 6)  # of each task; scene 0 has a crowd and scene 1 is empty
PROGRESS = re.compile(r"\(train\) *(?:\[(\d+)\])?\[ *(\d+)/(\d+)\].* eta: (\S+) .* loss: ([\d.]+)")


class Model(NamedTuple):
    """One of the two models."""

    title: str
    config: str
    metrics: dict[str, tuple[str, float]]  # name in the table: key in metrics.json, factor to it


MODELS = (
    Model(
        "Mask R-CNN",
        "configs/demo/agent_pvt_maskrcnn_demo.py",
        {
            "box AP": ("coco/bbox_mAP", 1),
            "box AP50": ("coco/bbox_mAP_50", 1),
            "mask AP": ("coco/segm_mAP", 1),
        },
    ),
    Model(
        "Semantic FPN",
        "configs/demo/agent_pvt_semantic_fpn_demo.py",
        {"mIoU": ("mIoU", 0.01)},  # mmseg gives per cent
    ),
)


def main() -> None:
    started = time.time()
    run("tools/make_demo_data.py", DATA)
    rows, drawn = [], []
    for model in MODELS:
        folder = OUT / Path(model.config).stem
        rows += train_and_test(model, folder)
        drawn += sorted((folder / "pictures").rglob("*.[jp][pn]g"))[PICTURES]
    join(drawn, OUT / "predictions.png")
    rows.append(("in all", "seconds", f"{time.time() - started:.0f}"))
    print("", *("  {:<14}{:<10}{:>8}".format(*row) for row in rows), "", sep="\n")
    print("predictions (left: truth, right: prediction): work_dirs/demo/predictions.png")


def train_and_test(model: Model, folder: Path) -> list[tuple[str, str, str]]:
    """Train and test, unless that is done; the rows (model, metric, value) of the table."""
    seconds = folder / "seconds"  # written when all is done
    if seconds.exists():
        print(f"{model.title} with Agent-PVT-T: trained before (rm -r {folder} to repeat)")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        started = time.time()
        where = ("--work-dir", folder)
        print(f"{model.title} with Agent-PVT-T: training ({model.config})", flush=True)
        run("tools/train.py", model.config, *where, log=folder / "train.log")
        print(f"{model.title} with Agent-PVT-T: testing", flush=True)
        checkpoint = (folder / "last_checkpoint").read_text()
        test = ("tools/test.py", model.config, checkpoint, *where)
        run(*test, "--show-dir", folder / "pictures", log=folder / "test.log")
        seconds.write_text(f"{time.time() - started:.0f}")
    found = json.loads((folder / "metrics.json").read_text())["metrics"]
    rows = [(model.title, name, f"{found[k] * by:.3f}") for name, (k, by) in model.metrics.items()]
    return [*rows, (model.title, "seconds", seconds.read_text())]


def run(script: str, *arguments: str | Path, log: Path | None = None) -> None:
    """Run one of our tools; with ``log``, its output goes there and its progress to the screen.

    Exits with the tool's own code if it fails.
    """
    command = [sys.executable, "-u", "-W", "ignore", ROOT / script, *arguments]
    if log is None:
        code = subprocess.run(command, cwd=ROOT).returncode
    else:
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            show_progress(process.stdout, log)
        code = process.returncode
    if code:
        tail = log.read_text().splitlines()[-20:] if log else []
        print(*tail, f"error: {script} failed", sep="\n", file=sys.stderr)
        sys.exit(code)


def show_progress(lines: Iterable[str], log: Path) -> None:
    """Write the lines of a tool to a file, and what they say of the progress to the screen."""
    with log.open("w", buffering=1) as file:
        for line in lines:
            file.write(line)
            if found := PROGRESS.search(line):
                epoch, step, steps, eta, loss = found.groups()
                where = f"epoch {epoch}, iteration" if epoch else "iteration"
                print(f"  {where} {step} of {steps}, loss {loss}, {eta} left", flush=True)


def join(paths: list[Path], out: Path, height: int = 320) -> None:
    """Set pictures, scaled to one height, in two columns."""
    images = [mmcv.imread(path) for path in paths]
    images = [mmcv.imresize(i, (i.shape[1] * height // i.shape[0], height)) for i in images]
    cell = (height + 8, max(image.shape[1] for image in images) + 8)
    cells = [mmcv.impad(image, shape=cell, pad_val=(255, 255, 255)) for image in images]
    half = len(cells) // 2
    mmcv.imwrite(np.hstack([np.vstack(cells[:half]), np.vstack(cells[half:])]), str(out))


if __name__ == "__main__":
    main()
