"""The length of a training: with it go schedulers, intervals, and hooks that wait for an epoch.

All that a config counts in epochs or iterations is multiplied by new length / old length, with
three exceptions: an interval of 1 stays 1, what begins a number of epochs before the end keeps at
least one of them, and a warm-up counted in iterations takes at most a tenth of the run.
"""

from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from math import ceil
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.registry import DATASETS, init_default_scope

from mmengine_agent.config_walk import type_name, walk
from mmengine_agent.data.user_data import require_data
from mmengine_agent.errors import UsageError, UserError
from mmengine_agent.run.changes import Changes
from mmengine_agent.run.exit import explain

WARM_UP_SHARE = 10  # of the iterations of a run, at most one of so many
_LINES = 10  # of the log, at least
_WARM_UPS = {"LinearLR", "ConstantLR", "QuadraticWarmupLR"}
# of schedulers: keys that hold steps; ``milestones`` and ``periods`` hold several
_STEPS = ("T_max", "step_size", "total_steps", "milestones", "periods")
# by type of hook: keys, and the method of ``_Rescaling`` that moves what they hold
_HOOKS = {
    "CheckpointHook": {"interval": "_interval", "save_begin": "_interval"},
    "SafeCheckpointHook": {"interval": "_interval", "save_begin": "_interval"},
    "EMAHook": {"begin_epoch": "_interval", "begin_iter": "_interval"},
    "PipelineSwitchHook": {"switch_epoch": "_switch"},
    "YOLOXModeSwitchHook": {"num_last_epochs": "_step"},
}
_MODEL = ("initial_epoch", "warmup_iters")  # of heads, such as TOOD's and BoxInst's


def set_length(cfg: Config, changes: Changes, count: int, in_epochs: bool) -> None:
    """Have a config train for a number of epochs or iterations, in place.

    Args:
        cfg: of a training.
        changes: takes what is changed.
        count: the new length.
        in_epochs: of a config by iterations too, which gets as many as that takes of its data.

    Raises:
        UserError: if the config has no length, or counts in epochs and iterations are given.
    """
    loop = cfg.get("train_cfg") or {}
    by_epoch = "max_epochs" in loop
    key = "max_epochs" if by_epoch else "max_iters"
    if key not in loop:
        raise UserError(f"{changes.flag}: the config has no train_cfg.max_epochs or max_iters")
    if by_epoch and not in_epochs:
        raise UsageError(
            f"{changes.flag}: this config counts in epochs; take --epochs "
            f"(an epoch of its data has {epoch_length(cfg)} iterations)"
        )
    length = count * epoch_length(cfg) if in_epochs and not by_epoch else count
    before = loop[key] if isinstance(loop[key], int) and loop[key] > 0 else length
    _Rescaling(cfg, changes, length, before, by_epoch).apply()


def epoch_length(cfg: Config) -> int:
    """Iterations in which all processes together see each training image once.

    Raises:
        UserError: if the data are not there.
    """
    require_data(cfg, "train")
    init_default_scope(cfg.get("default_scope") or "mmdet")
    loader = cfg.train_dataloader
    try:
        with redirect_stdout(StringIO()):  # pycocotools says what it does
            images = len(DATASETS.build(loader.dataset))
    except Exception as error:  # of many kinds: data sets read files of all kinds
        text = explain(error) or error
        raise UserError(f"the training data cannot be counted: {text}") from error
    return max(1, ceil(images / (loader.get("batch_size", 1) * get_world_size())))


class _Rescaling:
    """A config, and how its lengths change."""

    def __init__(
        self, cfg: Config, changes: Changes, length: int, before: int, by_epoch: bool
    ) -> None:
        self.cfg, self.changes, self.by_epoch = cfg, changes, by_epoch
        self.length, self.before = length, before
        self.factor = length / before
        self.moved: dict[int, int] = {}  # ends of warm-ups

    def apply(self) -> None:
        """Write every length."""
        loop = self.cfg.train_cfg
        set_ = self.changes.set
        set_(f"train_cfg.{'max_epochs' if self.by_epoch else 'max_iters'}", loop, self.length)
        for key in ("val_interval", "val_begin"):
            self._move("train_cfg", loop, key, self._interval)
        if loop.get("dynamic_intervals"):
            moved = [(self._switch(at), each) for at, each in loop.dynamic_intervals]
            set_("train_cfg.dynamic_intervals", loop, moved)
        self._cut_warm_ups()
        for path, node in self._schedulers():
            self._scheduler(path, node)
        for path, node in walk({k: self.cfg.get(k) for k in ("default_hooks", "custom_hooks")}):
            self._hook(path, node)
        for path, node in walk(self.cfg.get("model"), "model"):
            for key in _MODEL:
                self._move(path, node, key, self._step)

    def _move(self, path: str, node: Any, key: str, moved: Callable[[int], int]) -> None:
        if isinstance(node.get(key), int):
            self.changes.set(f"{path}.{key}", node, moved(node[key]))

    def _step(self, value: int) -> int:
        """A step of the old run in the new one; the first steps stay after the start."""
        return max(1, round(value * self.factor)) if value else 0

    def _interval(self, value: int) -> int:
        return value if value <= 1 else self._step(value)

    def _switch(self, epoch: int) -> int:
        """An epoch that is followed by a number of last ones."""
        if not self.by_epoch or epoch > self.before:
            return self._step(epoch)
        return max(0, self.length - self._step(self.before - epoch))

    def _schedulers(self) -> Iterator[tuple[str, Any]]:
        for path, node in walk(self.cfg.get("param_scheduler"), "param_scheduler"):
            if "type" in node:
                yield path, node

    def _cut_warm_ups(self) -> None:
        """Find the new ends of warm-ups in iterations, which take little of the run.

        One of a single iteration would never end: mmengine leaves the rate at its start.
        """
        ends = {
            node["end"]
            for _, node in self._schedulers()
            if type_name(node) in _WARM_UPS
            and not node.get("by_epoch", True)
            and not node.get("begin")
            and isinstance(node.get("end"), int)
        }
        if ends:
            total = self.length * (epoch_length(self.cfg) if self.by_epoch else 1)
            most = total // WARM_UP_SHARE
            self.moved = {end: max(2, min(most, self._step(end))) for end in ends}

    def _scheduler(self, path: str, node: Any) -> None:
        in_iterations = not node.get("by_epoch", True)

        def moved(value: int) -> int:
            return self.moved.get(value, self._step(value)) if in_iterations else self._step(value)

        before = {key: node.get(key) for key in ("begin", "end")}
        begin, end = (moved(each) if isinstance(each, int) else None for each in before.values())
        if begin is not None:
            self.changes.set(f"{path}.begin", node, begin)
        if end is not None:
            end = max(end, (begin or 0) + 1)
            self.changes.set(f"{path}.end", node, end)
        for key in _STEPS:
            value = node.get(key)
            if isinstance(value, int):
                whole = key == "T_max" and before["end"] == (before["begin"] or 0) + value
                new = end - (begin or 0) if whole and end is not None else self._step(value)
                self.changes.set(f"{path}.{key}", node, new)
            elif isinstance(value, list | tuple):
                self.changes.set(f"{path}.{key}", node, [moved(each) for each in value])

    def _hook(self, path: str, node: Any) -> None:
        name = type_name(node)
        for key, method in _HOOKS.get(name, {}).items():
            self._move(path, node, key, getattr(self, method))
        if name == "LoggerHook" and not self.by_epoch:  # of an epoch the last is logged anyway
            most = max(1, self.length // _LINES)
            self.changes.set(f"{path}.interval", node, min(node.get("interval", 10), most))
