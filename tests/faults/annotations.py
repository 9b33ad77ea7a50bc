"""Mutated annotation files: each is a clear error, or is trained on as it is meant.

    python tests/faults/annotations.py --count 2000

Half are COCO JSON, half label PNGs of a small generated set: bytes cut, flipped and moved, values
of a wrong kind or size, keys lost and renamed, pictures of another mode or shape. Each goes through
the checks before training and, if they let it pass, through the training pipeline image by image;
every 20th of those also through a training step of a small model. Prints a row of the table, and
ends with 1 if anything raised, hung or crashed.
"""

import argparse
import copy
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from PIL import Image
from tqdm import tqdm

from mmengine_agent.class_counts import set_class_count
from mmengine_agent.data.checked_loading import check_loading
from mmengine_agent.data.user_data import DataFlags, datasets, point_at
from mmengine_agent.errors import UserError
from mmengine_agent.task import task_of

ROOT = Path(__file__).parents[2]
CONFIGS = {
    "coco": ROOT / "configs/demo/agent_pvt_maskrcnn_demo.py",
    "ade": ROOT / "configs/demo/agent_pvt_semantic_fpn_demo.py",
}
SECONDS = 20  # for one file: more is a hang
STEP_EVERY = 20  # files between training steps
CHUNK = 50  # files a process looks at
VALUES: list[Any] = [None, True, False, 0, -1, 1, 2**31, 10**30, 1e308, -0.5, float("nan")]
VALUES += [float("inf"), "", "x", "1", "é\u0000", [], {}, [[]], [None], {"a": 1}, [1, 2], "x" * 999]


# ---- mutations


def mutate_json(content: Any, rng: random.Random) -> bytes:
    """A COCO file with one to three things changed."""
    if rng.random() < 0.25:
        return mutate_bytes(json.dumps(content).encode(), rng)
    content = json.loads(json.dumps(content))
    for _ in range(rng.randint(1, 3)):
        _change(content, rng)
    return json.dumps(content).encode()


def _change(content: Any, rng: random.Random) -> None:
    """Change a value or key somewhere in the tree, in place."""
    places = list(_places(content))
    if not places:
        return
    holder, key = rng.choice(places)
    what = rng.randrange(5)
    if what == 0:
        holder[key] = rng.choice(VALUES)
    elif what == 1:
        del holder[key]
    elif what == 2 and isinstance(holder, list):
        holder.insert(key, json.loads(json.dumps(holder[key])))
    elif what == 3 and isinstance(holder, dict):
        holder[str(key)[:-1] + "_"] = holder.pop(key)
    elif isinstance(holder[key], int | float):
        holder[key] = holder[key] * rng.choice([-1, 0, 0.5, 10, 1000, 1e9]) + rng.choice([0, 0, 3])
    else:
        holder[key] = rng.choice(VALUES)


def _places(node: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Every (list or dict, index or key) of a tree that has one."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in items:
        yield node, key
        if isinstance(child, dict | list):
            yield from _places(child, depth + 1)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """A file cut, overwritten, moved, or in another encoding."""
    at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    noise = bytes(rng.randrange(256) for _ in range(rng.randint(1, 8)))
    ways = [
        data[:at],
        data[:at] + noise + data[at + len(noise) :],
        data[:at] + data[end:],
        data[:end] + data[at:],
        b"\xef\xbb\xbf" + data,
        data.decode("latin-1").encode("utf-16"),
        b"",
        b"[" * 100_000 + data,
    ]
    return rng.choice(ways)


def mutate_png(path: Path, rng: random.Random) -> None:
    """Change a label map on disk."""
    what, labels = rng.randrange(8), np.asarray(Image.open(path)).copy()
    if what <= 2:
        path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    elif what == 3:  # numbers of no class, or of one
        labels[: rng.randint(1, 8), :8] = rng.randrange(256)
        Image.fromarray(labels).save(path)
    elif what == 4:
        mode = rng.choice(["RGB", "LA", "1", "P", "I", "F", "CMYK"])
        image = Image.fromarray(labels).convert(mode)
        image.save(path, format="TIFF" if mode in {"CMYK", "F", "I"} else "PNG")
    elif what == 5:
        deep = labels.astype(np.uint16) + rng.choice([0, 0, 256, 60000])
        Image.fromarray(deep.astype(np.uint16)).save(path)
    elif what == 6:
        size = rng.randint(1, 90), rng.randint(1, 90)
        Image.fromarray(labels).resize(size).save(path)
    else:
        _replace(path, rng)


def _replace(path: Path, rng: random.Random) -> None:
    """Something else where a label map was."""
    path.unlink()
    what = rng.randrange(4)
    if what == 0:
        path.mkdir()
    elif what == 1:
        path.symlink_to(path)
    elif what == 2:
        path.write_text("no picture\n")


# ---- what becomes of a file


def outcome(kind: str, cfg: Config, step: bool) -> str:
    """'error' if it is reported, 'trained' if samples are as they should be; else it raises."""
    flags = DataFlags(root=next(datasets(cfg))[1].data_root)
    told: list[str] = []
    try:
        if kind == "coco":
            point_at(cfg, flags)
        told += [
            problem.text
            for problem in task_of(cfg).data_problems(cfg, ("train", "val"))
            if problem.fatal
        ]
    except UserError as error:
        told.append(str(error))
    if told:
        assert all(each.strip() and "Traceback" not in each for each in told)
        return "error"
    return train_on(kind, cfg, step)


def train_on(kind: str, cfg: Config, step: bool) -> str:
    """Load every sample as training does; 'error' if the policy names one as bad."""
    dataset_cfg = cfg.train_dataloader.dataset
    dataset = DATASETS.build(dataset_cfg)
    check_loading(dataset, None, task_of(cfg).label_check(dataset.metainfo["classes"]))
    try:
        samples = [dataset[index] for index in range(len(dataset))]
    except UserError:
        return "error"
    count = len(dataset.metainfo["classes"])
    for sample in samples:
        require_sane(sample, count)
    if step:
        losses = training_step(kind, samples[:2], count)
        assert all(torch.isfinite(value).all() for value in losses), losses
    return "trained"


def require_sane(sample: Any, classes: int) -> None:
    """What a loss relies on: finite boxes within the image, a mask for each, labels of a class."""
    truth, (height, width) = sample["data_samples"], sample["inputs"].shape[1:]
    if "gt_instances" not in truth:
        labels = truth.gt_sem_seg.data
        assert labels.shape[1:] == (height, width)
        assert ((labels < classes) | (labels == 255)).all()
        return
    found = truth.gt_instances
    boxes = found.bboxes.tensor
    assert torch.isfinite(boxes).all()
    assert (boxes >= 0).all() and (boxes <= max(height, width)).all()
    assert ((found.labels >= 0) & (found.labels < classes)).all()
    assert len(found.masks) == len(boxes) and found.masks.masks.shape[1:] == (height, width)


@cache
def read(kind: str) -> Config:
    """A demo config; to read one takes longer than all that is done with it."""
    return Config.fromfile(CONFIGS[kind])


@cache
def model_for(kind: str, classes: int) -> Any:
    """The model of a demo config, for a number of classes that a mutation may have changed."""
    cfg = copy.deepcopy(read(kind))
    set_class_count(cfg.model, classes)
    return MODELS.build(cfg.model)


def training_step(kind: str, samples: list[Any], classes: int) -> list[torch.Tensor]:
    """The total loss of a batch."""
    model = model_for(kind, classes)
    data = model.data_preprocessor(pseudo_collate(samples), True)
    return [model.parse_losses(model(**data, mode="loss"))[0]]


# ---- one file, many files


def look(number: int, data: Path) -> str:
    """Mutate one file of a copy of the set, and say what became of it."""
    kind, rng = ("coco", "ade")[number % 2], random.Random(number)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, kind)
        shutil.copytree(data / kind, root)
        cfg = copy.deepcopy(read(kind))
        init_default_scope(cfg.default_scope)
        point_at(cfg, DataFlags(root=str(root)))
        if kind == "coco":
            path = root / "annotations/instances_train2017.json"
            path.write_bytes(mutate_json(json.loads(path.read_text()), rng))
        else:
            mutate_png(rng.choice(sorted((root / "annotations/training").iterdir())), rng)
        signal.alarm(SECONDS)
        try:
            return outcome(kind, cfg, step=number // 2 % STEP_EVERY == 0)
        except Hang:
            return "hang"
        except Exception:
            print(f"file {number}:\n{traceback.format_exc()}", file=sys.stderr)
            return "traceback"
        finally:
            signal.alarm(0)


class Hang(BaseException):
    """Time is up; no error, or the checks would take it for one of the file."""


def _hung(*_: Any) -> None:
    raise Hang


def _chunk(numbers: list[int], data: Path, log: Path) -> None:
    signal.signal(signal.SIGALRM, _hung)
    gc.freeze()  # mmengine collects for each data set, and all that is imported is looked at
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # pycocotools prints
    with log.open("a") as file:
        for number in numbers:
            print(look(number, data), file=file, flush=True)


def run(count: int, first: int = 0) -> Counter[str]:
    """What became of ``count`` files; a process that died counts as 'crash'."""
    found: list[str] = []
    for kind in CONFIGS:
        read(kind)  # once for all processes
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=count, unit="file") as bar:
        data, log = Path(scratch, "demo"), Path(scratch, "log")
        make = [sys.executable, str(ROOT / "tools/make_demo_data.py"), str(data)]
        sizes = ["--train", "4", "--val", "2", "--size", "64"]
        subprocess.run([*make, *sizes], check=True, capture_output=True)
        while len(found) < count:
            log.write_text("")
            numbers = [*range(first + len(found), first + min(len(found) + CHUNK, count))]
            process = get_context("fork").Process(target=_chunk, args=(numbers, data, log))
            process.start()
            process.join(SECONDS * len(numbers))
            done = log.read_text().split()
            if len(done) < len(numbers):
                done.append("hang" if process.is_alive() else "crash")
                print(f"file {numbers[len(done) - 1]}: {done[-1]}", file=sys.stderr)
                process.kill()
            found += done
            bar.update(len(done))
    return Counter(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first")
    args = parser.parse_args()
    started = time.time()
    found = run(args.count, args.first)
    bad = {kind: found[kind] for kind in ("traceback", "hang", "crash")}
    told = ", ".join(f"{kind} {number}" for kind, number in bad.items())
    good = f"clear error {found['error']}, trained as meant {found['trained']}"
    wanted = "clear error or correct training; no traceback, no hang"
    seconds = time.time() - started
    print(f"| {args.count} mutated annotation files | {wanted} | {good}; {told}; {seconds:.0f} s |")
    sys.exit(1 if any(bad.values()) else 0)


if __name__ == "__main__":
    main()
