"""mmdet's data-set classes, each through training, test, report and prediction: a table.

    make sets
    python tests/sets/run.py LVIS Cityscapes     # some rows

Stock configs with Agent-PVT-T on tiny sets in the published forms (``made.py``), run as a user
would run them. LVIS and Cityscapes need the packages lvis and cityscapesscripts, and say so where
they are missing. Exit code 1 if a row is neither that nor a score. Scores are those of a few
iterations: nothing is learnt.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "tests")]

import made  # noqa: E402

SHORT = [
    "--backbone",
    "agent_pvt_t",
    "--from-scratch",
    "--image-size",
    "96",
    "96",
    "--workers",
    "0",
]


class Row(NamedTuple):
    """A set: who writes it, the config and its further flags, and the score that is wanted."""

    write: Callable[[Path], None]
    config: str
    score: str
    flags: tuple[str, ...] = ()


def own(train: str, val: str) -> tuple[str, ...]:
    """Flags that have the class names read from annotation files."""
    return "--train-ann", f"annotations/{train}.json", "--val-ann", f"annotations/{val}.json"


FEW = ("--cfg-options", "model.test_cfg.rcnn.max_per_img=5")  # masks of many take minutes
OBJECTS = "mmdet::objects365/retinanet_r50_fpn_1x_objects365"
ROWS = {
    "COCO panoptic": Row(
        made.panoptic,
        "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py",
        "coco_panoptic/PQ",
        (*own("panoptic_train2017", "panoptic_val2017"), "--iters", "2"),
    ),
    "COCO panoptic, FPN": Row(
        made.panoptic,
        "mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py",
        "coco_panoptic/PQ",
        (*own("panoptic_train2017", "panoptic_val2017"), "--epochs", "1"),
    ),
    "LVIS": Row(
        made.lvis,
        "mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py",
        "lvis/bbox_AP",
        ("--epochs", "1", *FEW),
    ),
    "Objects365 v1": Row(
        partial(made.objects365, version=1),
        f"{OBJECTS}v1.py",
        "coco/bbox_mAP",
        (*own("objects365_train", "objects365_val"), "--epochs", "1"),
    ),
    "Objects365 v2": Row(
        partial(made.objects365, version=2),
        f"{OBJECTS}v2.py",
        "coco/bbox_mAP",
        (*own("zhiyuan_objv2_train", "zhiyuan_objv2_val"), "--epochs", "1"),
    ),
    "V3Det": Row(
        made.v3det,
        "mmdet::v3det/faster_rcnn_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py",
        "coco/bbox_mAP",
        (*own("v3det_2023_v1_train", "v3det_2023_v1_val"), "--iters", "2", *FEW),
    ),
    "Cityscapes": Row(
        made.cityscapes,
        "mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py",
        "cityscapes/mAP",
        ("--epochs", "1", *FEW, "train_dataloader.dataset.times=1"),
    ),
}


def run(tool: str, *words: str, cwd: Path) -> str:
    """Run a tool; its last line on stderr, and whether there was a traceback, if it failed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
    )
    (cwd / f"{tool}.txt").write_text(done.stdout + done.stderr)
    if not done.returncode:
        return ""
    said = "TRACEBACK: " if "Traceback" in done.stderr else ""
    return f"{tool}: {said}{done.stderr.strip().splitlines()[-1]}"


def try_row(row: Row, folder: Path) -> str:
    """Train, test, report and predict; the score, or what was said."""
    row.write(folder / "set")
    work = folder / "work"
    where = ["--data-root", str(folder / "set"), "--work-dir", str(work)]
    fault = run("train.py", row.config, *SHORT, *where, *row.flags, cwd=folder)
    if fault:
        return fault
    given = [str(next(work.glob("*.py"))), (work / "last_checkpoint").read_text().strip()]
    photo = next(path for path in (folder / "set").rglob("*val*/**/*.*g") if "gt" not in str(path))
    steps = [
        ("test.py", *given, "--work-dir", str(work)),
        ("report.py", str(work)),
        ("predict.py", *given, str(photo), "--out", str(folder / "found"), "--device", "cpu"),
    ]
    for step in steps:
        if fault := run(*step, cwd=folder):
            return fault
    metrics = json.loads((work / "metrics.json").read_text())["metrics"]
    if row.score not in metrics:
        return f"NO SCORE {row.score} in {', '.join(metrics) or 'none'}"
    return f"{row.score} {metrics[row.score]:g}"


def main() -> None:
    wanted, faults = sys.argv[1:], 0
    with tempfile.TemporaryDirectory() as place:
        for name, row in ROWS.items():
            if wanted and name.split()[0] not in wanted and name not in wanted:
                continue
            started, folder = time.time(), Path(place, name.replace(" ", "_"))
            folder.mkdir()
            said = try_row(row, folder)
            faults += not said.startswith(row.score) and "pip install" not in said
            print(f"{name:20} {time.time() - started:5.0f} s  {said}", flush=True)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
