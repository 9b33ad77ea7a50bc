"""Flags for data that misbehave during training, and what they put into a config."""

from argparse import ArgumentParser, Namespace
from typing import Any

from mmengine.config import Config

from mmengine_agent.errors import UserError


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
    _add_first(cfg, ours)


def guard_loading(cfg: Config) -> None:
    """Check what is loaded in testing: a file that is broken ends the run with its name."""
    hook = {"type": "BadSamplesHook", "policy": "error", "log_dir": cfg.work_dir}
    _add_first(cfg, [hook])


def _add_first(cfg: Config, hooks: list[dict[str, Any]]) -> None:
    """Put hooks before the others, since those of one priority run in this order."""
    types = {hook["type"] for hook in hooks}
    others = [hook for hook in cfg.get("custom_hooks") or [] if hook["type"] not in types]
    cfg.custom_hooks = [*hooks, *others]
