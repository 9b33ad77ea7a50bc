"""All checks, and their one list."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from mmengine_agent.class_counts import class_counts
from mmengine_agent.data.user_data import class_names, datasets
from mmengine_agent.errors import Problem, UserError
from mmengine_agent.preflight.keys import unread_keys
from mmengine_agent.task import task_of

# models that know their classes by words, number things and stuff apart, or follow objects
_FREE_CLASSES = {"language_model", "panoptic_fusion_head", "detector", "reid"}


def require_ready(
    cfg: Config, *others: Callable[[], None], options: dict[str, Any] | None = None
) -> None:
    """Raise one UserError with everything that would stop a training, or spoil it in silence.

    Args:
        cfg: the config as it will be run.
        others: checks that raise UserError themselves; they come first, and may change the config.
        options: what ``--cfg-options`` changed.
    """
    init_default_scope(cfg.get("default_scope") or "mmdet")
    _raise_all([*_raised(others), *problems(cfg, options or {})], "training")


def require_sound(cfg: Config) -> None:
    """Raise one UserError with what would stop a test for its data."""
    _raise_all(list(task_of(cfg).data_problems(cfg, ("test",))), "testing")


def problems(cfg: Config, options: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with a training."""
    yield from map(Problem, unread_keys(cfg, options))
    splits = ("train", "val") if cfg.get("val_cfg") is not None else ("train",)
    yield from task_of(cfg).data_problems(cfg, splits)
    yield from class_problems(cfg)
    yield from loader_problems(cfg)
    yield from process_problems(cfg)
    yield from work_dir_problems(cfg)


def _raise_all(found: list[Problem], what: str) -> None:
    """Print the warnings among what was found, and raise UserError with the rest."""
    stops = []
    for problem in dict.fromkeys(found):
        if problem.fatal:
            stops.append(problem.text)
        else:
            print(f"warning: {problem.text}", file=sys.stderr)
    if len(stops) == 1:
        raise UserError(stops[0])
    if stops:
        listed = "\n".join(f"{number}. {each}" for number, each in enumerate(stops, 1))
        raise UserError(f"{len(stops)} things to mend before {what}:\n{listed}")


def _raised(checks: tuple[Callable[[], None], ...]) -> Iterator[Problem]:
    for check in checks:
        try:
            check()
        except UserError as error:
            yield Problem(str(error))


# ---- what they look at


def class_problems(cfg: Config) -> Iterator[Problem]:
    """Heads whose ``num_classes`` is not the number of the data set's classes."""
    named: dict[str, set[int]] = {"train": set(), "val": set()}  # by split, numbers of its sets
    for split, dataset in datasets(cfg):
        names = class_names(dataset, task_of(cfg).scope) if split in named else ()
        if names:
            named[split].add(len(names))
    if cfg.model.keys() & _FREE_CLASSES or any(len(each) > 1 for each in named.values()):
        return
    texts: dict[int, str] = {}
    for split, numbers in named.items():
        for number in numbers:
            texts.setdefault(number, f"{split}_dataloader names {number} classes")
    if len(texts) > 1:
        yield Problem(
            f"training and validation differ in their classes: {'; '.join(texts.values())}"
        )
    for head in class_counts(cfg.model):
        if len(texts) == 1 and head.number not in texts:
            ((wanted, text),) = texts.items()
            yield Problem(
                f"{head.path} is {head.number}, but {text}; --cfg-options {head.path}={wanted}, "
                "or --train-ann / --classes, which set all of them"
            )


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
