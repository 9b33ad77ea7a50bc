"""Training comforts by flag: what a user would otherwise look up and write into a config."""

import warnings
from argparse import ArgumentParser, Namespace
from typing import Any, TypeVar

import torch
from mmengine.config import Config

from mmengine_agent.errors import UserError
from mmengine_agent.task import task_of

Number = TypeVar("Number", int, float)
LOGGERS = {
    "tensorboard": ("TensorboardVisBackend", "tensorboard"),
    "wandb": ("WandbVisBackend", "wandb"),
}


def add_training_flags(parser: ArgumentParser) -> None:
    """Add the flags to a parser, as a group of their own."""
    group = parser.add_argument_group("training")
    group.add_argument(
        "--amp", action="store_true", help="mixed precision: bfloat16 where the GPU has it"
    )
    group.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate by the total batch size over the config's",
    )
    group.add_argument(
        "--ema",
        type=float,
        nargs="?",
        const=0.9998,
        metavar="DECAY",
        help="validate and save moving averages of the weights too (decay %(const)s)",
    )
    group.add_argument("--clip-grad", type=float, metavar="NORM", help="largest norm of gradients")
    group.add_argument(
        "--accumulate", type=int, metavar="N", help="one optimizer step for N iterations"
    )
    group.add_argument(
        "--early-stop",
        type=int,
        metavar="N",
        help="stop after N validations without a better score (bbox mAP or mIoU)",
    )
    group.add_argument(
        "--find-lr",
        type=int,
        nargs="?",
        const=200,
        metavar="N",
        help="do not train: in N iterations (%(const)s) look for a good learning rate",
    )
    group.add_argument(
        "--log-to", nargs="+", choices=LOGGERS, default=[], help="%(choices)s, beside the log file"
    )


def apply_training_flags(cfg: Config, args: Namespace) -> None:
    """Write what the flags ask for into a config.

    Raises:
        UserError: if a value or the machine does not allow it.
    """
    if args.amp:
        set_amp(cfg)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    if args.ema is not None:
        set_ema(cfg, args.ema)
    if args.clip_grad is not None:
        cfg.optim_wrapper.clip_grad = {"max_norm": _positive("--clip-grad", args.clip_grad)}
    if args.accumulate is not None:
        cfg.optim_wrapper.accumulative_counts = _positive("--accumulate", args.accumulate)
    if cfg.optim_wrapper.get("accumulative_counts", 1) > 1:
        # mmengine warns in the first iteration of each such run, which takes no step as it should
        warnings.filterwarnings("ignore", r"Detected call of `scheduler\.step\(\)` before")
    if args.early_stop is not None:
        set_early_stop(cfg, _positive("--early-stop", args.early_stop))
    for name in args.log_to:
        add_logger(cfg, name)


def set_amp(cfg: Config) -> None:
    """Mixed precision: bfloat16, or float16 with dynamic loss scaling where there is none."""
    if not torch.cuda.is_available():
        raise UserError("--amp: mmengine's mixed precision needs a GPU, and torch sees none")
    cfg.optim_wrapper.type = "AmpOptimWrapper"
    if torch.cuda.is_bf16_supported():
        cfg.optim_wrapper.dtype = "bfloat16"
    else:
        cfg.optim_wrapper.setdefault("loss_scale", "dynamic")


def set_auto_scale_lr(cfg: Config) -> None:
    """Learning rate times (processes x batch) / base batch."""
    if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
        raise UserError(
            "--auto-scale-lr: the config does not say which batch size its learning rate is for; "
            "add --cfg-options auto_scale_lr.base_batch_size=16"
        )
    cfg.auto_scale_lr.enable = True


def set_ema(cfg: Config, decay: float) -> None:
    """Moving averages of the weights: each step keeps ``decay`` of what there was."""
    if not 0 < decay < 1:
        raise UserError(f"--ema: the decay must lie between 0 and 1, got {decay}")
    # mmengine's momentum is the share of what is new
    _add_hook(cfg, {"type": "EMAHook", "momentum": 1 - decay})


def set_early_stop(cfg: Config, patience: int) -> None:
    """Stop when the main score has not grown by 0.001 in ``patience`` validations."""
    hook = {"type": "EarlyStoppingHook", "patience": patience, "rule": "greater"}
    task = task_of(cfg)
    least = 0.001 * task.perfect_score
    _add_hook(cfg, {**hook, "monitor": task.main_score, "min_delta": least})


def add_logger(cfg: Config, name: str) -> None:
    """Write scalars to one more place.

    Raises:
        UserError: if its package is not installed.
    """
    kind, package = LOGGERS[name]
    try:
        __import__(package)
    except ImportError as error:
        raise UserError(f"--log-to {name}: pip install {package}") from error
    backends = cfg.visualizer.setdefault("vis_backends", [])
    if all(backend["type"] != kind for backend in backends):
        cfg.visualizer.vis_backends = [*backends, {"type": kind}]


def _add_hook(cfg: Config, hook: dict[str, Any]) -> None:
    """Add a custom hook, in place of one of its type."""
    others = [old for old in cfg.get("custom_hooks", []) if old["type"] != hook["type"]]
    cfg.custom_hooks = [*others, hook]


def _positive(flag: str, value: Number) -> Number:
    if value <= 0:
        raise UserError(f"{flag} must be positive, got {value}")
    return value
