"""Where a run happens: work directory, processes, devices, workers."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from mmengine_agent.errors import Problem


def loader_problems(cfg: Config) -> Iterator[Problem]:
    """Settings that torch's DataLoader refuses, late and one by one."""
    for name in ("train_dataloader", "val_dataloader"):
        loader = cfg.get(name) or {}
        settings = ("batch_size", "num_workers", "persistent_workers", "prefetch_factor")
        try:
            DataLoader([0], **{key: loader[key] for key in settings if key in loader})  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            yield Problem(f"{name}: {error}")


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
