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
from mmengine_agent.errors import Problem, UserError
from mmengine_agent.predict.model import build_model, require_fit
from mmengine_agent.task import task_of

# models that know their classes by words, number things and stuff apart, or follow objects
_FREE_CLASSES = {"language_model", "panoptic_fusion_head", "detector", "reid"}


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


def fit_problems(cfg: Config) -> Iterator[Problem]:
    """A checkpoint to resume or to start from that does not fit the model."""
    path, resume = cfg.get("load_from"), bool(cfg.get("resume"))
    if resume and not path and Path(cfg.work_dir).is_dir():
        path = find_latest_checkpoint(cfg.work_dir)
    if not path:
        return
    try:
        model = _build_model(cfg)
        content = CheckpointLoader.load_checkpoint(str(path), "cpu")
        weights = unwrap(content, backbone=False)
        if resume:
            require_fit(model, weights, str(path))
    except (UserError, ValueError, OSError) as error:
        yield Problem(str(error) if str(path) in str(error) else f"{path}: {error}")
        return
    yield from _state_problems(content, path) if resume else _part_problems(model, weights, path)


def _build_model(cfg: Config) -> nn.Module:
    """The model, on the CPU and without pre-trained weights."""
    given = copy.deepcopy(cfg)
    preprocessor = given.get("data_preprocessor")
    if preprocessor:  # as mmengine's Runner does
        given.model.setdefault("data_preprocessor", preprocessor)
    model: nn.Module = build_model(given)
    return model


def _state_problems(content: Any, path: Any) -> Iterator[Problem]:
    absent = [key for key in ("optimizer", "meta") if key not in content]
    if absent:
        yield Problem(
            f"{path} has no {' and no '.join(absent)}, so it is no run to go on with; to start "
            f"from its weights: --cfg-options load_from={path}"
        )


def _part_problems(model: nn.Module, found: dict[str, Tensor], path: Any) -> Iterator[Problem]:
    """To start from other weights is meant to leave some out, but not all."""
    wanted = model.state_dict()
    fitting = [n for n in wanted if n in found and found[n].shape == wanted[n].shape]
    if not fitting:
        yield Problem(f"load_from: {path} has none of the model's {len(wanted)} weights")
    elif len(fitting) < len(wanted):
        yield Problem(
            f"load_from: {path} has {len(fitting)} of the model's {len(wanted)} weights",
            fatal=False,
        )
