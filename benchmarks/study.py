"""The study of mixers: train, test, one JSON file a run. ``mixers.py --study`` calls it.

A run is a task, a data set, a mixer and a seed; it is trained with the plan that all share and
tested at 1, 1.5 and 2 times the training resolution. Ctrl-C or SIGTERM saves and stops; the same
command goes on: finished runs stay, one that was begun goes on from its last checkpoint. Started
several times at once, the processes share the runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import reporting
from candidates import at_least, flat, one_of
from filelock import FileLock
from mmengine.config import Config
from study_config import ROOT, Plan, Run, detector_test, make_config, segmentor_test
from study_page import write_summary

from mmengine_agent.errors import UserError
from mmengine_agent.files import atomic_folder
from mmengine_agent.resume.newest import newest_whole
from mmengine_agent.run.lock import lock_work_dir
from mmengine_agent.run.setup import build_runner

# by row of the table: the mixers of the four stages
ROWS: dict[str, tuple[str, ...]] = {
    **{
        name: (name,) * 4
        for name in (
            *("agent", "reduced", "windows", "focused", "norm", "diag"),
            *("aft_simple", "aft_conv", "aft_local"),
        )
    },
    "transnormer": ("diag", "diag", "norm", "norm"),  # as its paper has them
}
TASKS = ("segmentor", "detector")
FACTORS = (1.0, 1.5, 2.0)  # of the training resolution
SCORES = {"segmentor": ("mIoU", "aAcc"), "detector": ("coco/bbox_mAP", "coco/bbox_mAP_50")}
IGNORED = 11  # CamVid's label of what is no class


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The study's flags."""
    add = parser.add_argument_group("the study").add_argument
    add("--study", type=Path, metavar="DIR", help="train and test; results and data are in DIR")
    add("--tasks", type=one_of(TASKS), nargs="+", default=[list(TASKS)], metavar="NAME")
    add("--rows", type=one_of(ROWS), nargs="+", default=[list(ROWS)], metavar="MIXER")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="%(default)s")
    add("--camvid", type=Path, metavar="DIR", help="CamVid: train, trainannot, val, valannot")
    add("--no-scenes", action="store_true", help="only the photographs")
    for name, default in Plan()._asdict().items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            add(flag, action="store_true", help=HELP[name])
        else:
            add(flag, type=type(default), default=default, help=f"{HELP[name]} (%(default)s)")
    add("--train-images", type=at_least(1), default=240, help="scenes to train on (%(default)s)")
    add("--test-images", type=at_least(1), default=24, help="to test on (%(default)s)")


HELP = {
    "budget": "iterations of a run",
    "batch": "images of a batch",
    "size": "side of training images in pixels",
    "rate": "learning rate",
    "bfloat16": "train under autocast to bfloat16",
    "save_every": "iterations between checkpoints",
}


def study(args: argparse.Namespace) -> None:
    """Do all runs that are not done.

    Raises:
        UserError: if a data set is asked for that is not there.
    """
    plan = Plan(**{name: getattr(args, name) for name in Plan._fields})
    args.study.mkdir(parents=True, exist_ok=True)
    with FileLock(args.study / "data.lock"):
        folders = prepare_data(args)
    for run in runs(args, list(folders)):
        path = result_path(args.study, run, plan)
        if claim_run(path):
            reporting.say(f"{path.stem} ...")
            reporting.write_json(path, carry_out(run, plan, folders[run.data], path))
            write_summary(args.study)
    print(write_summary(args.study))


def claim_run(path: Path) -> bool:
    """Take a run for this process; False if it has a result, or another process does it."""
    if path.exists():
        return False
    try:
        lock_work_dir(path.with_suffix(""))
    except UserError:
        return False
    return not path.exists()  # another process may have ended it before the lock was ours


def runs(args: argparse.Namespace, data: list[str]) -> Iterator[Run]:
    """All runs, the most telling first: one seed of all, then the next."""
    tasks = flat(args.tasks)
    sets = [(task, each) for each, task in product(data, tasks)]
    for seed in args.seeds:
        for task, each in sets:
            if task == "segmentor" or each == "scenes":  # the photographs have no boxes
                yield from (Run(task, each, mixer, seed) for mixer in flat(args.rows))


def result_path(folder: Path, run: Run, plan: Plan) -> Path:
    """The JSON file of a run; others of its name had the same task, data, mixer, seed, plan."""
    kind = f"{plan.budget}x{plan.batch}at{plan.size}" + "-bfloat16" * plan.bfloat16
    return folder / f"{run.task}-{run.data}-{run.mixer}-seed{run.seed}-{kind}.json"


def carry_out(run: Run, plan: Plan, data: Path, result: Path) -> dict[str, Any]:
    """Train and test, from the last checkpoint if there is one; what the JSON file has."""
    work_dir = result.with_suffix("")
    cfg = make_config(run, plan, ROWS[run.mixer], data, work_dir)
    train(cfg)
    checkpoint = work_dir / f"iter_{plan.budget}.pth"
    scores = {f"{f:g}": test(run, plan, data, cfg, checkpoint, f) for f in FACTORS}
    loss = statistics.mean(losses(work_dir)[-2:])
    for each in work_dir.glob("*.pth"):
        each.unlink()
    return {
        **reporting.header(),
        **{**run._asdict(), "mixers": ROWS[run.mixer], **plan._asdict()},
        **{"scores": scores, "last_loss": loss},
    }


def train(cfg: Config) -> None:
    """Train to the end of the budget, from the last checkpoint if there is one."""
    found = newest_whole(cfg, reporting.say) if Path(cfg.work_dir).is_dir() else None
    cfg.resume, cfg.load_from = found is not None, str(found) if found else None
    build_runner(cfg).train()


def test(
    run: Run, plan: Plan, data: Path, trained: Config, checkpoint: Path, factor: float
) -> dict[str, float]:
    """Scores (0 to 1) in float32, at ``factor`` times the training resolution."""
    change = segmentor_test if run.task == "segmentor" else detector_test
    cfg = test_config(trained, checkpoint, f"test-{factor:g}")
    cfg.merge_from_dict(change(run, plan, data, factor))
    metrics = build_runner(cfg).test()
    scale = 0.01 if run.task == "segmentor" else 1  # mmseg gives per cent
    return {key: float(metrics[key]) * scale for key in SCORES[run.task]}


def test_config(trained: Config, checkpoint: Path, name: str) -> Config:
    """The config that tests a checkpoint of a training; ``name`` is the folder of its logs."""
    cfg = Config(trained.to_dict())
    cfg.resume, cfg.load_from = False, str(checkpoint)
    cfg.train_cfg = cfg.train_dataloader = cfg.optim_wrapper = cfg.param_scheduler = None
    cfg.custom_hooks = []
    cfg.work_dir = cfg.visualizer.name = str(Path(trained.work_dir, name))
    return cfg


def losses(work_dir: Path) -> list[float]:
    """What mmengine logged of the loss, in order."""
    found = []
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in path.read_text().splitlines():
            found += [json.loads(line)["loss"]] if '"loss"' in line else []
    return found


# --- data


def prepare_data(args: argparse.Namespace) -> dict[str, Path]:
    """The folders of the data sets by name; makes those that are not there."""
    found: dict[str, Path] = {}
    if not args.no_scenes:
        name = f"scenes-{args.train_images}-{args.test_images}-{args.size}"
        found["scenes"] = args.study / "data" / name
        draw_scenes(found["scenes"], args.train_images, args.test_images, args.size)
    if args.camvid:
        found["camvid"] = args.study / "data" / f"camvid-{args.test_images}"
        if not found["camvid"].is_dir():
            prepare_camvid(args.camvid, found["camvid"], args.test_images)
    return found


def draw_scenes(out: Path, train: int, val: int, size: int, *more: object) -> None:
    """Make a data set of scenes, unless it is there; ``more`` are flags of the tool."""
    if not out.is_dir():
        tool = ROOT / "tools/make_demo_data.py"
        words = (tool, out, "--train", train, "--val", val, "--size", size, *more)
        subprocess.run([sys.executable, *map(str, words)], check=True)


def prepare_camvid(source: Path, out: Path, tests: int) -> None:
    """Link CamVid's photographs and write its labels in ADE20K's form: 0 is no class.

    Args:
        source: folder with train, trainannot, val and valannot; labels 0 to 10, and 11 for none.
        out: folder to be written.
        tests: images to test on, evenly from ``val``.

    Raises:
        UserError: if there are no such folders.
    """
    with atomic_folder(out) as new:
        for part, split in (("train", "training"), ("val", "validation")):
            images = sorted((source / part).glob("*.*"))
            if not images:
                raise UserError(f"--camvid: there are no images in {source / part}")
            if part == "val":
                images = images[:: max(1, len(images) // tests)][:tests]
            for folder in ("images", "annotations"):
                (new / "ade" / folder / split).mkdir(parents=True)
            for image in images:
                os.symlink(image.resolve(), new / "ade/images" / split / f"{image.stem}.jpg")
                labels = cv2.imread(str(source / f"{part}annot/{image.stem}.png"), -1)
                path = new / "ade/annotations" / split / f"{image.stem}.png"
                cv2.imwrite(str(path), (np.asarray(labels) + 1) % (IGNORED + 1))
