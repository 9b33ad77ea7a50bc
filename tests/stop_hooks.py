"""Hooks that stop a run, or save it, at an iteration; and what a new process would begin with."""

import os
import random
import shutil
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmengine_agent.hooks.checkpoint import SafeCheckpointHook


class Killed(BaseException):
    """What SIGKILL is to a process: nothing runs after it, least of all a handler of errors."""


@HOOKS.register_module(force=True)
class SaveInTheMiddle(Hook):
    """Saves after an iteration as a signal would, into a file of its own, and goes on."""

    priority = "LOWEST"

    def __init__(self, after: int, into: str) -> None:
        self.after, self.into = after, into

    def after_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.after:
            hook = next(each for each in runner.hooks if isinstance(each, SafeCheckpointHook))
            meta = {"epoch": runner.epoch, "iter": runner.iter + 1}
            shutil.copy(hook.save_interrupted(runner, meta), self.into)


@HOOKS.register_module(force=True)
class SendSignal(Hook):
    """Sends this process a signal, in an iteration or in a validation."""

    def __init__(self, number: int, iteration: int = -1, validation: bool = False) -> None:
        self.number, self.iteration, self.validation = number, iteration, validation

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), self.number)

    def before_val_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        if self.validation:
            os.kill(os.getpid(), self.number)


def add_hook(cfg: Config, kind: str, **arguments: Any) -> Config:
    cfg.custom_hooks = [{"type": kind, **arguments}, *cfg.custom_hooks]
    return cfg


def scramble() -> None:
    """Random states as another process would have them."""
    random.seed(99)
    np.random.seed(98)
    torch.manual_seed(97)
