"""Where a run happens: work directory, processes, devices, workers."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmengine_agent.errors import Problem


def loader_problems(cfg: Config) -> Iterator[Problem]:
    """Settings that torch's DataLoader refuses, late and one by one."""
    for split in ("train", "val"):
        loader, name = cfg.get(f"{split}_dataloader") or {}, f"{split}_dataloader"
        workers, batch = loader.get("num_workers", 0), loader.get("batch_size", 1)
        if not _is_count(workers, 0):
            yield Problem(f"{name}.num_workers must be 0 or more, got {workers!r}")
            continue
        if not _is_count(batch, 1):
            yield Problem(f"{name}.batch_size must be 1 or more, got {batch!r}")
        for key in ("persistent_workers", "prefetch_factor"):
            if not workers and loader.get(key):
                yield Problem(f"{name}.{key} needs workers: num_workers is 0; set {key} to None")
        cores = os.cpu_count() or 1
        if workers > 4 * cores:
            text = f"{name}.num_workers is {workers}, and the machine has {cores} cores"
            yield Problem(text, fatal=False)


def process_problems(cfg: Config) -> Iterator[Problem]:
    """More processes than GPUs, where there are any."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if gpus and cfg.get("launcher", "none") != "none" and processes > gpus:
        yield Problem(f"{processes} processes were started here, and torch sees {gpus} GPUs")


def work_dir_problems(cfg: Config) -> Iterator[Problem]:
    """A work directory that cannot be written; nothing is made of it."""
    folder = Path(cfg.work_dir).absolute()
    parent = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except NotADirectoryError:
        yield Problem(f"--work-dir {cfg.work_dir}: {parent} is a file")
    except OSError as error:
        text = f"--work-dir {cfg.work_dir}: {parent} cannot be written ({error.strerror})"
        yield Problem(text)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
