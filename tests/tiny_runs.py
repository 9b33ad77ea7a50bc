"""Trainings of seconds: tasks with everything random that real ones have, and a toy.

``detection`` and the Mask R-CNN recipe are by epochs with mmdet's AspectRatioBatchSampler,
``segmentation`` and the UPerNet recipe by iterations with mmengine's InfiniteSampler. All crop,
resize or flip at random and drop paths; the first of each keep averages.
"""

import gc
import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from mmengine.runner import runner as runner_module
from mmengine.utils.dl_utils import collect_env
from tiny_tasks import CLASSES, DEMOS, TASKS, last_checkpoint, small_config
from torch.utils.data import Dataset

from mmengine_agent.checkpoints import install_safe_loader, load_local
from mmengine_agent.resume.switch_on import make_resumable
from mmengine_agent.run.train import fuse_optimizer

LAST = {name: last_checkpoint(name) for name in TASKS}  # of the runs as configured
TIMES = ("time", "data_time", "memory")
_NUMBERS = itertools.count()


# ---- data


def make_data(folder: Path) -> Path:
    """Eight training and three validation images, wide and tall, of one box each."""
    numbers = np.random.RandomState(3)
    for part, count in (("train", 8), ("val", 3)):
        (folder / part).mkdir(parents=True)
        (folder / f"{part}_labels").mkdir()
        images, notes = [], []
        for number in range(count):
            height, width = (48, 64) if number % 3 else (64, 48)
            left, top, size, kind = 4 + number, 6 + number, 24, number % len(CLASSES)
            picture = numbers.randint(0, 255, (height, width, 3), np.uint8)
            labels = np.full((height, width), 1, np.uint8)
            picture[top : top + size, left : left + size] = 50 * kind
            labels[top : top + size, left : left + size] = 4 + kind
            cv2.imwrite(str(folder / part / f"{number}.jpg"), picture)
            cv2.imwrite(str(folder / f"{part}_labels" / f"{number}.png"), labels)
            right, bottom = left + size, top + size
            images.append(
                {"id": number, "file_name": f"{number}.jpg", "width": width, "height": height}
            )
            notes.append(
                {
                    "id": number + 1,
                    "image_id": number,
                    "category_id": kind + 1,
                    "bbox": [left, top, size, size],
                    "area": size * size,
                    "iscrowd": 0,
                    "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
                }
            )
        kinds = [{"id": place + 1, "name": name} for place, name in enumerate(CLASSES)]
        content = {"images": images, "annotations": notes, "categories": kinds}
        (folder / f"{part}.json").write_text(json.dumps(content))
    return folder


# ---- configs


def tiny(
    task: str,
    data: Path,
    work_dir: Path,
    workers: int | None = None,
    length: int | None = None,
    **settings: Any,
) -> Config:
    """A task of ``tiny_tasks``; of the demo's, two epochs or eight iterations, validated twice.

    Args:
        task: its name.
        data: of ``make_data``.
        work_dir: where the run writes.
        workers: of each data loader; None: none for the demo's, as many as published for a recipe.
        length: iterations, if not the task's own.
        settings: further changes, by their dotted names.
    """
    cfg = small_config(task, data, length)
    if workers is None and task in DEMOS:
        workers = 0
    if workers is not None:
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.num_workers, loader.persistent_workers = workers, workers > 0
    cfg.visualizer.vis_backends = [{"type": "LocalVisBackend"}]
    cfg.merge_from_dict(settings)
    return finish(cfg, work_dir)


def finish(cfg: Config, work_dir: Path) -> Config:
    """Make a config's runs what trainings are, and keep apart what mmengine keeps by name."""
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f"run{next(_NUMBERS)}"
    if "visualizer" in cfg:  # else one of an earlier run writes on, where it began
        cfg.visualizer.name = cfg.experiment_name
    make_resumable(cfg)
    fuse_optimizer(cfg)
    install_safe_loader()
    return cfg


# ---- a toy


@MODELS.register_module(force=True)
class NumbersModel(BaseModel):
    """Fits numbers, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, inputs: Any, mode: str = "loss") -> Any:
        """The loss of numbers (batch, 4), or how good it is."""
        out = self.layer(torch.nn.functional.dropout(torch.stack(inputs), 0.3, self.training))
        loss = (out - 1).square().mean()
        return {"loss": loss} if mode == "loss" else [-loss]


@DATASETS.register_module(force=True)
class NumbersData(Dataset):
    """Twelve samples that are partly drawn at random, and a list of those that were read."""

    read: list[int]

    def __init__(self) -> None:
        self.read = []

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        self.read.append(index)
        return {"inputs": torch.rand(4) + index + float(np.random.rand())}


@METRICS.register_module(force=True)
class NumbersMetric(BaseMetric):
    """The sum of how good all batches are."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.extend(float(each) for each in data_samples)

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {"accuracy": sum(results)}


def toy(work_dir: Path, by_epoch: bool = True, workers: int = 0, **settings: Any) -> Config:
    """Four epochs of three iterations or twelve iterations, a checkpoint after each three."""
    sampler = {"type": "DefaultSampler" if by_epoch else "InfiniteSampler", "shuffle": True}
    loader = {"batch_size": 4, "num_workers": workers, "persistent_workers": workers > 0}
    kind = "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop"
    length = {"max_epochs": 4} if by_epoch else {"max_iters": 12, "val_interval": 3}
    keep = {"interval": 1 if by_epoch else 3, "max_keep_ckpts": 1, "save_best": "accuracy"}
    cfg = Config(
        {
            "model": {"type": "NumbersModel"},
            "train_dataloader": {**loader, "dataset": {"type": "NumbersData"}, "sampler": sampler},
            "val_dataloader": {
                **loader,
                "dataset": {"type": "NumbersData"},
                "sampler": {"type": "DefaultSampler", "shuffle": False},
            },
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "Adam", "lr": 0.05}},
            "param_scheduler": [{"type": "LinearLR", "by_epoch": False, "end": 20}],
            "train_cfg": {"type": kind, **length},
            "val_cfg": {},
            "val_evaluator": {"type": "NumbersMetric"},
            "default_hooks": {
                "checkpoint": {"type": "CheckpointHook", "by_epoch": by_epoch, **keep}
            },
            "log_processor": {"by_epoch": by_epoch},
            "log_level": "ERROR",
        }
    )
    cfg.merge_from_dict(settings)
    return finish(cfg, work_dir)


# ---- running and comparing


def start_quickly() -> None:
    """Have later runs of this process and of its forks start in less time; after a first run.

    mmengine asks compilers and drivers for their versions, and has the garbage collector look at
    all that was imported, for each data set.
    """
    gc.collect()
    gc.freeze()
    runner_module.collect_env = cache(collect_env)


def train(cfg: Config, seed: int | None = None, resume: Path | None = None) -> Runner:
    """Train to the end."""
    cfg.randomness = {"seed": seed}
    if resume is not None:
        cfg.resume, cfg.load_from = True, str(resume)
    runner = Runner.from_cfg(cfg)
    try:
        runner.train()
    finally:
        # workers that the garbage collector ends, and not the last reference, take seconds each
        for loop in (runner.train_loop, runner.val_loop):
            if hasattr(loop, "dataloader"):
                loop.dataloader._iterator = loop.dataloader_iterator = None
    return runner


def difference(one: Path, other: Path) -> str | None:
    """The first thing that differs, bit for bit, between two checkpoints; None if nothing does.

    Compared are all weights, averages, optimizer, schedules, random states and the log with losses
    and metrics; not the times.
    """
    first, second = load_local(str(one)), load_local(str(other))
    for content in (first, second):
        del content["meta"]
        hub = content.pop("message_hub")["log_scalars"]
        logs = {name: log for name, log in hub.items() if name.split("/")[-1] not in TIMES}
        content["log"] = {name: log.data for name, log in logs.items()}
        content["run_state"].pop("validated")
    return _difference(first, second, "")


def _difference(one: Any, other: Any, where: str) -> str | None:
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{where}: {sorted(map(str, one.keys() ^ other.keys()))}"
        found = (_difference(one[key], other[key], f"{where}/{key}") for key in one)
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            return f"{where}: lengths {len(one)} and {len(other)}"
        pairs = zip(one, other, strict=True)
        found = (_difference(*pair, f"{where}/{place}") for place, pair in enumerate(pairs))
    elif isinstance(one, torch.Tensor | np.ndarray):
        same = np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)
        return None if same else where
    else:
        assert not isinstance(one, HistoryBuffer)
        return None if one == other or one != one else f"{where}: {one} and {other}"
    return next((each for each in found if each), None)
