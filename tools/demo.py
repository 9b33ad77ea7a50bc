"""The demo: generate data, train and test both demo models, show a table and a picture.

    python tools/demo.py

A model that has been trained and tested is not trained again while its folder in work_dirs/demo
is there, which also has the full logs.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import mmcv
import numpy as np

from mmengine_agent.draw import fit, write_image

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "work_dirs/demo"
PICTURES = slice(2, 6)  # of each task; scene 0 has a crowd and scene 1 is empty
# by name: the config and, by name in the table, the key in metrics.json and a factor to it
MODELS: dict[str, tuple[str, dict[str, tuple[str, float]]]] = {
    "Mask R-CNN": (
        "configs/demo/agent_pvt_maskrcnn_demo.py",
        {
            "box AP": ("coco/bbox_mAP", 1),
            "box AP50": ("coco/bbox_mAP_50", 1),
            "mask AP": ("coco/segm_mAP", 1),
        },
    ),
    "Semantic FPN": (
        "configs/demo/agent_pvt_semantic_fpn_demo.py",
        {"mIoU": ("mIoU", 0.01)},  # mmseg gives per cent
    ),
}


def main() -> None:
    started = time.time()
    run("tools/make_demo_data.py", ROOT / "data/demo")
    rows, drawn = [], []
    for title, (config, metrics) in MODELS.items():
        folder = OUT / Path(config).stem
        train_and_test(title, config, folder)
        found = json.loads((folder / "metrics.json").read_text())["metrics"]
        rows += [(title, name, f"{found[k] * by:.3f}") for name, (k, by) in metrics.items()]
        rows.append((title, "seconds", (folder / "seconds").read_text()))
        drawn += sorted((folder / "pictures").rglob("*.[jp][pn]g"))[PICTURES]
    write_image(OUT / "predictions.png", join(drawn))
    rows.append(("in all", "seconds", f"{time.time() - started:.0f}"))
    print("", *("  {:<14}{:<10}{:>8}".format(*row) for row in rows), "", sep="\n")
    print("predictions (left: truth, right: prediction): work_dirs/demo/predictions.png")


def train_and_test(title: str, config: str, folder: Path) -> None:
    """Train and test a model, unless that is done."""
    seconds = folder / "seconds"  # written when all is done
    if seconds.exists():
        print(f"{title} with Agent-PVT-T: trained before (rm -r {folder} to repeat)")
        return
    started = time.time()
    print(f"{title} with Agent-PVT-T: training ({config})", flush=True)
    run("tools/train.py", config, "--work-dir", folder)
    print(f"{title} with Agent-PVT-T: testing", flush=True)
    checkpoint = (folder / "last_checkpoint").read_text()
    shown = ("--show-dir", folder / "pictures")
    run("tools/test.py", config, checkpoint, "--work-dir", folder, *shown)
    seconds.write_text(f"{time.time() - started:.0f}")


def run(script: str, *arguments: str | Path) -> None:
    """Run one of our tools and show how far its training is; exits with its code if it fails."""
    command = [sys.executable, "-u", "-W", "ignore", ROOT / script, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:  # mmengine writes all of it into its own log, too
        if "(train)" in line:
            print(line, end="", flush=True)
    if process.wait():
        sys.exit(process.returncode)


def join(paths: list[Path]) -> np.ndarray:
    """Pictures in two columns, scaled to one height."""
    rows, (high, wide) = len(paths) // 2, (328, 808)
    picture = np.full((rows * high, 2 * wide, 3), 255, np.uint8)
    for number, path in enumerate(paths):
        image = fit(mmcv.imread(path), wide - 8, high - 8)
        top, left = number % rows * high, number // rows * wide
        picture[top : top + image.shape[0], left : left + image.shape[1]] = image
    return picture


if __name__ == "__main__":
    main()
