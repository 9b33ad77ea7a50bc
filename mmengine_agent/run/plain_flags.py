"""Flags that people type: how long, how many at once, how fast, how large, on what.

Each sets all that follows from it in a config, which is printed. What a flag sets cannot be set by
``--cfg-options`` too.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import mmengine.device.utils
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process

from mmengine_agent.config_walk import walk
from mmengine_agent.errors import UsageError, UserError
from mmengine_agent.predict.model import choose_device
from mmengine_agent.run.changes import Changes, require_one_answer
from mmengine_agent.run.image_size import set_image_size
from mmengine_agent.run.schedule import set_length

_LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_Setters = dict[str, tuple[int | None, Callable[[Config, Changes, Any], None]]]
# flags that ask the same question, or of which one has no meaning beside the other
_EITHER = (
    ("epochs", "iters"),
    ("lr", "auto_scale_lr"),
    *((name, "find_lr") for name in ("epochs", "iters", "lr")),
)
# of the flags that are written elsewhere: the settings that are theirs
_OTHERS = {
    "work_dir": ["work_dir"],
    "agents": ["model.backbone.agent_shapes", "model.backbone.agent_shape"],
    "resume": ["resume"],
    "accumulate": ["optim_wrapper.accumulative_counts"],
    "clip_grad": ["optim_wrapper.clip_grad"],
    "auto_scale_lr": ["auto_scale_lr.enable"],
    "data_root": [f"{loader}.dataset.data_root" for loader in _LOADERS],
    "train_ann": ["train_dataloader.dataset.ann_file"],
    "val_ann": [f"{loader}.dataset.ann_file" for loader in _LOADERS[1:]],
    "classes": [f"{loader}.dataset.metainfo" for loader in _LOADERS],
}


def add_plain_flags(parser: ArgumentParser, training: bool) -> None:
    """Add the flags to a parser, as a group of their own; a test has no length and no rate."""
    add = parser.add_argument_group("the run").add_argument
    if training:
        add("--epochs", type=int, metavar="N", help="length; schedule and intervals follow")
        add("--iters", type=int, metavar="N", help="the same, of a config that counts iterations")
        add("--lr", type=float, metavar="X", help="learning rate after warm-up")
    add("--batch-size", type=int, metavar="N", help="images of a process at once")
    text = "of what the network gets; all sizes of pipelines and model follow"
    add("--image-size", type=int, nargs=2, metavar=("W", "H"), help=text)
    add("--workers", type=int, metavar="N", help="processes that load data, of each loader")
    add("--seed", type=int, metavar="N", help="of all random numbers")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1; default: a GPU if any")


def apply_plain_flags(cfg: Config, args: Namespace, loader: str = "train_dataloader") -> None:
    """Write what the flags ask for into a config, and print what changed.

    Args:
        cfg: of a training or a test.
        args: flags by name; those that are absent, None or False are not given.
        loader: of ``--batch-size``; validation keeps its own, since padding changes predictions.

    Raises:
        UsageError: if a value is out of range, or something is asked twice.
        UserError: if the config or the machine does not allow it.
    """
    given = {name: each for name, each in vars(args).items() if each is not None}
    given = {name: each for name, each in given.items() if each is not False}
    options = given.get("cfg_options") or {}
    done: list[Changes] = []
    for one, other in _EITHER:
        if one in given and other in given:
            raise UsageError(f"{_flag(one)} and {_flag(other)} exclude each other: leave one out")
    for name, paths in _OTHERS.items():
        if name in given:
            require_one_answer(_flag(name), paths, options)
    # the batch first: how long an epoch is depends on it
    setters: _Setters = {"batch_size": (1, partial(_set_batch, loader)), **_SETTERS}
    for name, (least, set_) in setters.items():
        if name not in given:
            continue
        values = list(given[name]) if isinstance(given[name], list | tuple) else [given[name]]
        if least is not None and min(values) < least:
            raise UsageError(f"{_flag(name)} takes whole numbers from {least} on, got {values}")
        changes = Changes(f"{_flag(name)} {' '.join(map(str, values))}")
        set_(cfg, changes, given[name])
        require_one_answer(_flag(name), changes.places, options)
        done.append(changes)
    if is_main_process():
        print(*(each for each in done if each.places), sep="\n", end="\n" if done else "")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _set_batch(loader: str, cfg: Config, changes: Changes, count: int) -> None:
    changes.set(f"{loader}.batch_size", cfg[loader], count)


def _set_lr(cfg: Config, changes: Changes, rate: float) -> None:
    """The rate, and rates of schedulers in proportion."""
    optimizer = cfg.optim_wrapper.get("optimizer") or {}
    if not optimizer.get("lr"):
        raise UserError(f"{changes.flag}: the config has no optim_wrapper.optimizer.lr")
    if not 0 < rate < inf:
        raise UsageError(f"{changes.flag}: a rate is a number above 0")
    before = optimizer["lr"]
    factor = rate / before if isinstance(before, int | float) else 1.0
    changes.set("optim_wrapper.optimizer.lr", optimizer, rate)
    for path, node in walk(cfg.get("param_scheduler"), "param_scheduler"):
        for key in ("eta_min", "eta_max"):
            if node.get(key):
                changes.set(f"{path}.{key}", node, node[key] * factor)


def _set_workers(cfg: Config, changes: Changes, count: int) -> None:
    for name in _LOADERS:
        if loader := cfg.get(name):
            changes.set(f"{name}.num_workers", loader, count)
            if count == 0:
                for key in ("persistent_workers", "prefetch_factor"):
                    if loader.get(key):
                        changes.set(f"{name}.{key}", loader, None if key[1] == "r" else False)


def _set_seed(cfg: Config, changes: Changes, seed: int) -> None:
    cfg.randomness = cfg.get("randomness") or {}
    changes.set("randomness.seed", cfg.randomness, seed)


def _set_device(cfg: Config, changes: Changes, name: str) -> None:
    """Have mmengine, which takes the first GPU, take this device."""
    if cfg.get("launcher", "none") != "none":
        raise UsageError(f"{changes.flag}: a launcher gives each process its own; leave it out")
    device = choose_device(name)
    mmengine.device.utils.DEVICE = device.type
    if device.type == "cuda":
        torch.cuda.set_device(device)


# by name: the least value of whole numbers, and what sets it
_SETTERS: _Setters = {
    "epochs": (1, partial(set_length, in_epochs=True)),
    "iters": (1, partial(set_length, in_epochs=False)),
    "lr": (None, _set_lr),
    "image_size": (1, set_image_size),
    "workers": (0, _set_workers),
    "seed": (0, _set_seed),
    "device": (None, _set_device),
}
