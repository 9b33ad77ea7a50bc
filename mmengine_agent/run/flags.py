"""Training comforts by flag: what a user would otherwise look up and write into a config."""

import os
import warnings
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmengine_agent.errors import UserError
from mmengine_agent.run.mixed_precision import set_amp
from mmengine_agent.task import task_of

# by name: mmengine's class and the package that it needs
LOGGERS = {
    "tensorboard": ("TensorboardVisBackend", "tensorboard"),
    "wandb": ("WandbVisBackend", "wandb"),
    "mlflow": ("MLflowVisBackend", "mlflow"),
    "clearml": ("ClearMLVisBackend", "clearml"),
    "neptune": ("NeptuneVisBackend", "neptune"),
    "dvclive": ("DVCLiveVisBackend", "dvclive"),
    "aim": ("AimVisBackend", "aim"),
}
POSITIVE = ("--clip-grad", "--accumulate", "--early-stop", "--nan-limit")


def add_training_flags(parser: ArgumentParser) -> None:
    """Add the flags to a parser, in two groups of their own."""
    add = parser.add_argument_group("training").add_argument
    text = "mixed precision: bfloat16 on GPUs that have it and, for segmentors, on a CPU"
    add("--amp", action="store_true", help=text)
    text = "scale the learning rate by the total batch size over the config's"
    add("--auto-scale-lr", action="store_true", help=text)
    text = "validate and save moving averages of the weights too (decay %(const)s)"
    add("--ema", type=float, nargs="?", const=0.9998, metavar="DECAY", help=text)
    add("--clip-grad", type=float, metavar="NORM", help="largest norm of gradients")
    add("--accumulate", type=int, metavar="N", help="one optimizer step for N iterations")
    text = "stop after N validations without a better main score"
    add("--early-stop", type=int, metavar="N", help=text)
    text = "do not train: in N iterations (%(const)s) look for a good learning rate"
    add("--find-lr", type=int, nargs="?", const=200, metavar="N", help=text)
    text = "%(choices)s, besides the log file"
    add("--log-to", nargs="+", choices=LOGGERS, default=[], help=text)

    add = parser.add_argument_group("when something is wrong").add_argument
    text = (
        "an image or annotation that cannot be loaded: stop and name it, or train without it and "
        "count it (default: %(default)s)"
    )
    add("--on-bad-sample", choices=["error", "skip"], default="error", help=text)
    text = (
        "losses that are NaN or infinite: save and stop, or leave the batch out "
        "(default: %(default)s)"
    )
    add("--nan", choices=["stop", "skip"], default="stop", help=text)
    text = "batches that --nan=skip leaves out before the run stops (default: %(default)s)"
    add("--nan-limit", type=int, default=10, metavar="N", help=text)
    text = "start at once, without looking at data, checkpoint, work directory and settings"
    add("--no-checks", action="store_true", help=text)


def apply_training_flags(cfg: Config, args: Namespace) -> None:
    """Write what the flags ask for into a config.

    Raises:
        UserError: if a value or the machine does not allow it.
    """
    for flag in POSITIVE:
        value = getattr(args, flag[2:].replace("-", "_"))
        if value is not None and value <= 0:
            raise UserError(f"{flag} must be positive, got {value}")
    if args.amp:
        set_amp(cfg)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    if args.ema is not None:
        set_ema(cfg, args.ema)
    if args.clip_grad is not None:
        cfg.optim_wrapper.clip_grad = {"max_norm": args.clip_grad}
    if args.accumulate is not None:
        cfg.optim_wrapper.accumulative_counts = args.accumulate
    if cfg.optim_wrapper.get("accumulative_counts", 1) > 1:
        # mmengine warns in the first iteration of each such run, which takes no step as it should
        warnings.filterwarnings("ignore", r"Detected call of `scheduler\.step\(\)` before")
    if args.early_stop is not None:
        set_early_stop(cfg, args.early_stop)
    for name in args.log_to:
        add_logger(cfg, name)


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
    _set_hooks(cfg, {"type": "EMAHook", "momentum": 1 - decay})


def set_early_stop(cfg: Config, patience: int) -> None:
    """Stop when the main score has not grown by 0.001 in ``patience`` validations."""
    try:
        main = task_of(cfg).main_score(cfg)
    except UserError as error:
        raise UserError(f"--early-stop: {error}") from error
    score = {"monitor": main.key, "min_delta": 0.001 * main.perfect}
    _set_hooks(cfg, {"type": "EarlyStoppingHook", "patience": patience, "rule": "greater", **score})


def add_logger(cfg: Config, name: str) -> None:
    """Write scalars to one more place.

    Raises:
        UserError: if its package is not installed.
    """
    kind, package = LOGGERS[name]
    if find_spec(package) is None:
        raise UserError(f"--log-to {name} needs the package {package}: pip install {package}")
    backends = cfg.visualizer.setdefault("vis_backends", [])
    backend = {"type": kind}
    if name == "mlflow":  # newer ones refuse the folder that mmengine would name
        folder = Path(cfg.get("work_dir") or ".").resolve()
        place = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        backend |= {"tracking_uri": place, "artifact_location": str(folder / "mlruns")}
    if all(each["type"] != kind for each in backends):
        cfg.visualizer.vis_backends = [*backends, backend]


def set_guards(cfg: Config, args: Namespace) -> None:
    """Write into a config what happens to data and losses that are broken."""
    losses = {"type": "BadLossesHook", "policy": args.nan, "limit": args.nan_limit}
    samples = {"type": "BadSamplesHook", "policy": args.on_bad_sample, "log_dir": cfg.work_dir}
    _set_hooks(cfg, losses, samples, first=True)


def guard_loading(cfg: Config) -> None:
    """Check what is loaded in testing: a file that is broken ends the run with its name."""
    hook = {"type": "BadSamplesHook", "policy": "error", "log_dir": cfg.work_dir}
    _set_hooks(cfg, hook, first=True)


def _set_hooks(cfg: Config, *hooks: dict[str, Any], first: bool = False) -> None:
    """Add custom hooks in place of those of their types; of one priority they run in order."""
    types = {hook["type"] for hook in hooks}
    others = [hook for hook in cfg.get("custom_hooks") or [] if hook["type"] not in types]
    cfg.custom_hooks = [*hooks, *others] if first else [*others, *hooks]
