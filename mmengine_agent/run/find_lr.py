"""A learning-rate finder: how the loss falls while the rate grows, in a short run before training.

This is the range test of arXiv 1506.01186, section 3.3, with a rate that grows geometrically. Where
the loss is lowest the rate is as large as it may become in a training with warm-up and decay.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmengine_agent.errors import UserError
from mmengine_agent.files import atomic_write
from mmengine_agent.run.setup import build_runner

LOWEST, HIGHEST = 1e-6, 1.0
FEWEST = 20  # iterations
_NOISE = 1.5  # standard deviations that chance may make of a fall


class StopHook(Hook):
    """Ends a run at a loss that is NaN or infinite."""

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not outputs["loss"].isfinite():
            runner.train_loop.stop_training = True


def find_lr(cfg: Config, iterations: int) -> None:
    """Print the learning rate at which the loss is lowest and draw <work dir>/find_lr.png.

    Args:
        cfg: of the training; nothing else is trained or written but logs, in <work dir>/find_lr.
        iterations: in which the rate grows from LOWEST to HIGHEST.

    Raises:
        UserError: if the config has no single learning rate, or the loss does not fall.
    """
    picture = Path(cfg.work_dir, "find_lr.png")
    given = prepare(cfg, iterations)
    runner = build_runner(cfg)
    runner.register_hook(StopHook())
    runner.train()
    if not is_main_process():
        return
    logged = runner.message_hub.log_scalars
    rate = "base_lr" if "train/base_lr" in logged else "lr"  # groups have multiples of it
    rates, losses = (logged[f"train/{name}"].data[0] for name in (rate, "loss"))
    rates, losses = (each[np.isfinite(losses)] for each in (rates, losses))
    if len(losses) < 5:
        raise UserError(
            f"--find-lr: after {len(losses)} iterations the loss was not finite; look at the "
            "data, and at the weights it starts from"
        )
    line = smooth(losses)
    draw(picture, rates, losses, line)
    found = lowest(losses, line)
    if found is None:
        raise UserError(f"--find-lr: the loss fell at no learning rate, see {picture}")
    print(f"the loss is lowest at a learning rate of {rates[found]:.1e} (config: {given:.1e})")
    print(f"picture: {picture}")
    option = f"optim_wrapper.optimizer.lr={rates[found]:.1e}"
    print(f"to train with warm-up and decay: --cfg-options {option}")


def prepare(cfg: Config, iterations: int) -> float:
    """Make a config of a training that of a finder; its own learning rate.

    Raises:
        UserError: if this config or number of iterations does not allow it.
    """
    optimizer = cfg.optim_wrapper.get("optimizer", {})
    if iterations < FEWEST:
        raise UserError(f"--find-lr: takes at least {FEWEST} iterations, got {iterations}")
    if "lr" not in optimizer:
        raise UserError("--find-lr: the config has no optim_wrapper.optimizer.lr")
    if cfg.get("resume") or cfg.get("auto_scale_lr", {}).get("enable"):
        raise UserError("--find-lr: goes without --resume and --auto-scale-lr")
    given, optimizer.lr = float(optimizer.lr), LOWEST  # groups with lr_mult keep their ratios
    growth = (HIGHEST / LOWEST) ** (1 / (iterations - 1))
    cfg.param_scheduler = [{"type": "ExponentialLR", "gamma": growth, "by_epoch": False}]
    cfg.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": iterations}
    cfg.train_dataloader.sampler = {"type": "InfiniteSampler"}  # no pause after an epoch
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks = {**cfg.get("default_hooks", {}), "checkpoint": None}
    cfg.log_processor = {"by_epoch": False, "window_size": 10}
    stops = "CheckInvalidLossHook"  # of mmdet; here an infinite loss is no fault
    cfg.custom_hooks = [hook for hook in cfg.get("custom_hooks", []) if hook["type"] != stops]
    cfg.work_dir = str(Path(cfg.work_dir, "find_lr"))
    return given


def smooth(losses: np.ndarray) -> np.ndarray:
    """Means of neighbours with Gaussian weights, neither late nor early as running means are."""
    place, width = np.arange(len(losses)), max(1, len(losses) / 40)
    weights = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    return weights @ losses / weights.sum(1)


def lowest(losses: np.ndarray, line: np.ndarray) -> int | None:
    """Where the smoothed losses are lowest; None if until there they only vary."""
    end = int(line.argmin()) + 1
    noise = np.std(losses[:end] - line[:end])
    return end - 1 if np.ptp(line[:end]) > _NOISE * noise else None


def draw(path: Path, rates: np.ndarray, losses: np.ndarray, line: np.ndarray) -> None:
    """Draw the losses over the rates into a PNG."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.plot(rates, losses, color="lightgray")
    axes.plot(rates, line)
    axes.set_ylim(top=1.2 * losses[: line.argmin() + 1].max())  # what explodes flattens the rest
    with atomic_write(path) as part:
        figure.savefig(part, format="png", dpi=120)
