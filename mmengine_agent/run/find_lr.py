"""A learning-rate finder: how the loss falls while the rate grows, in a short run before training.

This is the range test of arXiv 1506.01186, section 3.3, with a rate that grows geometrically. Where
the loss is lowest the rate is as large as it may become in a training with warm-up and decay.
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file
from mmengine_agent.run.setup import build_runner

LOWEST, HIGHEST = 1e-6, 1.0
FEWEST = 20  # iterations
_EXPLODED = 4.0  # times the lowest loss, both means of _WINDOW iterations
_WINDOW = 5
_COLORS = ("#64748b", "#c2410c", "#047857")
_NOISE = 1.5  # standard deviations that chance may make of a fall


class RateHook(Hook):
    """Keeps the learning rate and loss of each iteration, and ends the run when it explodes."""

    priority = "NORMAL"  # after MeanLossHook, before ParamSchedulerHook

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Note the rate the step was made with, before it grows."""
        rates = runner.optim_wrapper.get_lr()
        self.rates.append(rates.get("base_lr", rates["lr"])[0])  # groups have multiples of it
        self.losses.append(float(outputs["loss"]))
        runner.train_loop.stop_training = exploded(self.losses)


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
    runner, hook = build_runner(cfg), RateHook()
    runner.register_hook(hook)
    runner.train()
    if is_main_process():
        report(hook, given, picture)


def report(hook: RateHook, given: float, picture: Path) -> None:
    """Draw what a run has shown, and print which learning rate to train with.

    Raises:
        UserError: if it shows none.
    """
    count = sum(map(math.isfinite, hook.losses))  # only the last may not be
    if count < _WINDOW:
        raise UserError(
            f"--find-lr: after {count} iterations the loss was not finite, at a learning rate of "
            f"{hook.rates[-1]:.1e}; look at the data, and at the weights it starts from"
        )
    rates, losses = np.array(hook.rates[:count]), np.array(hook.losses[:count])
    found = fall(losses)
    marks = {"config": given} | {name: rates[place] for name, place in found.items()}
    write_file(picture, draw(rates, losses, marks))
    if not found:
        raise UserError(f"--find-lr: the loss fell at no learning rate, see {picture}")
    print("learning rates:", ", ".join(f"{rate:.1e} ({name})" for name, rate in marks.items()))
    print(f"picture: {picture}")
    lowest = f"optim_wrapper.optimizer.lr={marks['lowest loss']:.1e}"
    print(f"to train with warm-up and decay: --cfg-options {lowest}")


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
    given, optimizer.lr = optimizer.lr, LOWEST  # groups with lr_mult keep their ratios
    growth = (HIGHEST / LOWEST) ** (1 / (iterations - 1))
    cfg.param_scheduler = [{"type": "ExponentialLR", "gamma": growth, "by_epoch": False}]
    cfg.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": iterations}
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    sampler = cfg.train_dataloader.get("sampler", {})
    if sampler.get("type") == "DefaultSampler":  # would stop for seconds after each epoch
        new = {"type": "InfiniteSampler", "shuffle": sampler.get("shuffle", True)}
        cfg.train_dataloader.sampler = ConfigDict(new)
    logger = {"type": "LoggerHook", "interval": 10}
    cfg.default_hooks = {**cfg.get("default_hooks", {}), "logger": logger, "checkpoint": None}
    cfg.log_processor = {"by_epoch": False, "window_size": 10}
    stops = "CheckInvalidLossHook"  # of mmdet; here an infinite loss is no fault
    cfg.custom_hooks = [hook for hook in cfg.get("custom_hooks", []) if hook["type"] != stops]
    cfg.work_dir = str(Path(cfg.work_dir, "find_lr"))
    return float(given)


def exploded(losses: list[float]) -> bool:
    """Whether the newest losses are far above the lowest, or not finite."""
    means = np.convolve(losses, np.full(_WINDOW, 1 / _WINDOW), "valid")
    far = len(losses) > _WINDOW and means[-1] > _EXPLODED * means.min()
    return bool(far) or not math.isfinite(losses[-1])


def smooth(losses: np.ndarray) -> np.ndarray:
    """Means of neighbours with Gaussian weights, neither late nor early as running means are."""
    place, width = np.arange(len(losses)), max(1, len(losses) / 40)
    weights = np.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    return weights @ losses / weights.sum(1)


def fall(losses: np.ndarray) -> dict[str, int]:
    """Where losses of growing rates fall fastest and are lowest; nothing if they only vary."""
    line = smooth(losses)
    lowest = int(line.argmin())
    before = slice(lowest + 1)
    noise = np.std(losses[before] - line[before])
    if np.ptp(line[before]) <= _NOISE * noise:
        return {}
    return {"steepest fall": int(np.gradient(line)[before].argmin()), "lowest loss": lowest}


def draw(rates: np.ndarray, losses: np.ndarray, marks: dict[str, float]) -> bytes:
    """The losses over the rates as PNG, with some rates marked."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="training loss")
    line = smooth(losses)
    axes.plot(rates, losses, color="#94a3b8", linewidth=0.7)
    axes.plot(rates, line, color="#1d4ed8", linewidth=2)
    for (name, rate), color in zip(marks.items(), _COLORS, strict=False):
        axes.axvline(rate, color=color, linestyle="--", label=f"{name}: {rate:.1e}")
    begin = losses[: int(line.argmin()) + 1]
    axes.set_ylim(top=begin.max() + 0.2 * np.ptp(begin))  # what explodes would flatten the rest
    axes.legend()
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
