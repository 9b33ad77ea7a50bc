"""Flags for data that misbehave during training, and what they put into a config."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mmengine.config import Config

import agent_attention.openmmlab.bad_losses
import agent_attention.openmmlab.bad_samples  # noqa: F401  (both register what configs name)
from agent_attention.openmmlab.data import class_names, datasets, is_coco
from agent_attention.openmmlab.errors import UserError


def add_guard_flags(parser: ArgumentParser) -> None:
    """Add the flags to a parser, as a group of their own."""
    group = parser.add_argument_group("when something is wrong")
    group.add_argument(
        "--on-bad-sample",
        choices=["error", "skip"],
        default="error",
        help="an image or annotation that cannot be loaded: stop and name it, or train without "
        "it and count it (default: %(default)s)",
    )
    group.add_argument(
        "--nan",
        choices=["stop", "skip"],
        default="stop",
        help="losses that are NaN or infinite: save and stop, or leave the batch out "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--nan-limit",
        type=int,
        default=10,
        metavar="N",
        help="batches that --nan=skip leaves out before the run stops (default: %(default)s)",
    )
    group.add_argument(
        "--no-checks",
        action="store_true",
        help="start at once, without looking at data, checkpoint, work directory and settings",
    )


def set_guards(cfg: Config, args: Namespace) -> None:
    """Write what the flags ask for into a config; a second time replaces the first.

    Raises:
        UserError: if a value does not allow it.
    """
    if args.nan_limit < 1:
        raise UserError(f"--nan-limit must be positive, got {args.nan_limit}")
    ours = [
        {"type": "BadLossesHook", "policy": args.nan, "limit": args.nan_limit},
        {"type": "BadSamplesHook", "policy": args.on_bad_sample, "log_dir": cfg.work_dir},
    ]
    types = {hook["type"] for hook in ours}
    others = [hook for hook in cfg.get("custom_hooks", []) if hook["type"] not in types]
    cfg.custom_hooks = [*ours, *others]  # first: hooks of one priority run in this order
    for split, dataset in datasets(cfg):
        if split != "test" and dataset.get("pipeline"):
            # another sample cannot stand in for one that is evaluated
            log_dir = cfg.work_dir if split == "train" else None
            classes = None if is_coco(cfg) else len(class_names(dataset)) or None
            dataset.pipeline = checked(dataset.pipeline, log_dir, classes)


def checked(pipeline: list[Any], log_dir: str | None, classes: int | None) -> list[Any]:
    """A pipeline whose loading steps, the first ones, are checked."""
    first = 0
    while first < len(pipeline) and "Load" in _name(pipeline[first]):
        first += 1
    steps, rest = list(pipeline[:first]), list(pipeline[first:])
    if steps and _name(steps[0]) == "CheckedLoading":  # of a dumped config
        steps = [*steps[0]["steps"], *steps[1:]]
    step = {"type": "CheckedLoading", "steps": steps, "log_dir": log_dir, "classes": classes}
    return [step, *rest] if steps else rest


def _name(step: Any) -> str:
    kind = step["type"]
    return kind if isinstance(kind, str) else kind.__name__
