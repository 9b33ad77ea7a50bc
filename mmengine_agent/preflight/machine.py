"""Where a run happens: work directory, free space, processes, devices, workers."""

import inspect
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

_STATES = {"SGD": 1, "Adam": 2, "AdamW": 2}  # numbers an optimizer keeps for a weight
_BYTES = 4  # of a number


def loader_problems(cfg: Config) -> Iterator[str]:
    """Settings that torch's DataLoader refuses, late and one by one."""
    for split in ("train", "val"):
        loader, name = cfg.get(f"{split}_dataloader") or {}, f"{split}_dataloader"
        workers, batch = loader.get("num_workers", 0), loader.get("batch_size", 1)
        if not _whole(workers) or workers < 0:
            yield f"{name}.num_workers must be 0 or more, got {workers!r}"
            continue
        if not _whole(batch) or batch < 1:
            yield f"{name}.batch_size must be 1 or more, got {batch!r}"
        for key in ("persistent_workers", "prefetch_factor"):
            if not workers and loader.get(key):
                yield f"{name}.{key} needs workers: num_workers is 0; set {key} to None"
        cores = os.cpu_count() or 1
        if workers > 4 * cores:
            yield f"warning: {name}.num_workers is {workers}, and the machine has {cores} cores"


def process_problems(cfg: Config) -> Iterator[str]:
    """More processes than GPUs, where there are any."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if gpus and cfg.get("launcher", "none") != "none" and processes > gpus:
        yield f"{processes} processes were started here, and torch sees {gpus} GPUs"


def space_problems(cfg: Config, weights: int) -> Iterator[str]:
    """A work directory that cannot be written, or has no room for the checkpoints to come."""
    folder = Path(cfg.work_dir).absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        yield f"--work-dir {cfg.work_dir}: {there} is a file"
        return
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        yield f"--work-dir {cfg.work_dir}: {there} cannot be written ({error.strerror})"
        return
    one, count = checkpoint_bytes(cfg, weights), checkpoints_to_come(cfg)
    # those of a run that goes on have their room; another run's are replaced by name
    there_already = sum(path.stat().st_size for path in folder.glob("*.pth"))
    if one * count > free + there_already:
        yield (
            f"--work-dir {cfg.work_dir}: {free / 1e9:.1f} GB are free, and {count} checkpoints of "
            f"about {one / 1e9:.2f} GB are to come; --cfg-options "
            "default_hooks.checkpoint.max_keep_ckpts=2 keeps the newest only"
        )


def checkpoint_bytes(cfg: Config, weights: int) -> int:
    """About the size of one checkpoint: weights, their averages, and the optimizer's state."""
    hook = cfg.get("default_hooks", {}).get("checkpoint") or {}
    optimizer = cfg.get("optim_wrapper", {}).get("optimizer") or {}
    states = _STATES.get(str(optimizer.get("type")), 1) if hook.get("save_optimizer", True) else 0
    averages = any(each["type"] == "EMAHook" for each in cfg.get("custom_hooks") or [])
    return weights * _BYTES * (1 + states + averages)


def checkpoints_to_come(cfg: Config) -> int:
    """How many files lie in the work directory at once, at most."""
    hook = cfg.get("default_hooks", {}).get("checkpoint") or {}
    loop = cfg.get("train_cfg") or {}
    given = {key: hook.get(key, default) for key, default in _hook_defaults().items()}
    total = loop.get("max_epochs" if given["by_epoch"] else "max_iters") or 1
    every = given["interval"] if given["interval"] > 0 else total
    regular = math.ceil(total / every)
    if given["max_keep_ckpts"] > 0:
        regular = min(regular, given["max_keep_ckpts"] + 1)  # the oldest goes last
    best = given["save_best"]
    return regular + (len(best) if isinstance(best, list) else int(bool(best)))


def _hook_defaults() -> dict[str, Any]:
    parameters = inspect.signature(CheckpointHook).parameters
    names = ("interval", "by_epoch", "max_keep_ckpts", "save_best")
    return {name: parameters[name].default for name in names}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
