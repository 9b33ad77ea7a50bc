"""The model of a config: do classes and checkpoints fit it?"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader, find_latest_checkpoint
from torch import Tensor, nn

from agent_attention.weights.fit import unwrap
from mmengine_agent.class_counts import class_counts
from mmengine_agent.data.user_data import class_names, datasets
from mmengine_agent.errors import UserError
from mmengine_agent.predict.model import build_model, require_fit
from mmengine_agent.task import task_of

# models that know their classes by words, number things and stuff apart, or follow objects
_FREE_CLASSES = {"language_model", "panoptic_fusion_head", "detector", "reid"}


def class_problems(cfg: Config) -> Iterator[str]:
    """Heads whose ``num_classes`` is not the number of the data set's classes."""
    counts = _class_counts(cfg)
    if cfg.model.keys() & _FREE_CLASSES or any(len(each) > 1 for each in counts.values()):
        return
    wanted: dict[int, str] = {}
    for split, numbers in counts.items():
        wanted |= {number: split for number in numbers if number not in wanted}
    told = [f"{split}_dataloader names {number} classes" for number, split in wanted.items()]
    if len(wanted) > 1:
        yield f"training and validation differ in their classes: {'; '.join(told)}"
    for found in class_counts(cfg.model):
        if len(wanted) == 1 and found.number not in wanted:
            yield (
                f"{found.path} is {found.number}, but {told[0]}; --cfg-options "
                f"{found.path}={next(iter(wanted))}, or --train-ann / --classes, which set all "
                "of them"
            )


def _class_counts(cfg: Config) -> dict[str, set[int]]:
    """How many classes the sets name that training and validation read."""
    scope = task_of(cfg).scope
    found: dict[str, set[int]] = {"train": set(), "val": set()}
    for split, dataset in datasets(cfg):
        names = class_names(dataset, scope) if split in found else ()
        if names:
            found[split].add(len(names))
    return found


def model_of(cfg: Config) -> nn.Module:
    """The model, on the CPU and without pre-trained weights.

    Raises:
        UserError: if it cannot be built.
    """
    given = copy.deepcopy(cfg)
    preprocessor = given.get("data_preprocessor")
    if preprocessor:  # as mmengine's Runner does
        given.model.setdefault("data_preprocessor", preprocessor)
    model: nn.Module = build_model(given)
    return model


def fit_problems(cfg: Config, model: nn.Module) -> Iterator[str]:
    """A checkpoint to resume or to start from that does not fit the model."""
    path = cfg.get("load_from")
    if cfg.get("resume") and not path:
        path = find_latest_checkpoint(cfg.work_dir) if Path(cfg.work_dir).is_dir() else None
    if not path:
        return
    try:
        content = CheckpointLoader.load_checkpoint(str(path), "cpu")
        found = unwrap(content, backbone=False)
        if cfg.get("resume"):
            require_fit(model, found, str(path))
    except (UserError, ValueError, OSError) as error:
        yield f"{path}: {error}" if str(path) not in str(error) else str(error)
        return
    yield from _state_problems(content, path) if cfg.get("resume") else _part(model, found, path)


def _state_problems(content: Any, path: Any) -> Iterator[str]:
    absent = [key for key in ("optimizer", "meta") if key not in content]
    if absent:
        yield (
            f"{path} has no {' and no '.join(absent)}, so it is no run to go on with; to start "
            f"from its weights: --cfg-options load_from={path}"
        )


def _part(model: nn.Module, found: dict[str, Tensor], path: Any) -> Iterator[str]:
    """To start from other weights is meant to leave some out, but not all."""
    wanted = model.state_dict()
    fitting = [n for n in wanted if n in found and found[n].shape == wanted[n].shape]
    if not fitting:
        yield f"load_from: {path} has none of the model's {len(wanted)} weights"
    elif len(fitting) < len(wanted):
        yield f"warning: load_from: {path} has {len(fitting)} of the model's {len(wanted)} weights"
