"""SIGTERM and SIGINT: save, and stop in a way that says that the run can go on."""

import faulthandler
import signal
import sys
import threading
import time
from multiprocessing import current_process, util
from types import FrameType
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS

from mmengine_agent.hooks.checkpoint import SafeCheckpointHook
from mmengine_agent.run.exit import RESUME_ME

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_HANGS = 20.0  # seconds of an iteration or a save, from a signal on


@HOOKS.register_module(force=True)
class InterruptHook(Hook):
    """After SIGTERM or SIGINT, saves at the end of the iteration and exits with 75 (EX_TEMPFAIL).

    All processes stop after the same iteration, whichever of them got the signal. A validation is
    broken off, and done again by the run that resumes; with several processes it is finished
    first. A second Ctrl-C, more than ``patience`` seconds after the first, stops at once and saves
    nothing: one that comes sooner may be the first, which launchers pass on.
    """

    priority = "LOWEST"  # the iteration is complete, and its checkpoint saved if it was due

    def __init__(self, patience: float = 1.0) -> None:
        self.patience = patience
        self.asked: signal.Signals | None = None
        self.since = 0.0
        self.before: dict[signal.Signals, Any] = {}

    def before_train(self, runner: Any) -> None:
        """Listen for signals; only the main thread can."""
        if threading.current_thread() is threading.main_thread():
            util.register_after_fork(self, InterruptHook._leave_pools)
            self.before = {each: signal.signal(each, self._ask) for each in _SIGNALS}

    def after_train(self, runner: Any) -> None:
        """Leave the signals to whom they belonged."""
        for each, handler in self.before.items():
            signal.signal(each, handler or signal.SIG_DFL)
        self.before = {}

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and exit, if any process was asked to."""
        asked = torch.tensor(int(self.asked or 0))
        all_reduce(asked, op="max")
        if asked:
            self._stop(runner, int(asked), {"epoch": runner.epoch, "iter": runner.iter + 1})

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Save and exit in the middle of a validation of one process.

        Processes may validate different numbers of batches, and cannot agree on one to stop at.
        """
        if self.asked and self.before and get_world_size() == 1:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # puts back the weights that are trained
                    hook.after_val_epoch(runner)
            self._stop(runner, self.asked, {"epoch": runner.epoch, "iter": runner.iter})

    def _leave_pools(self) -> None:
        """Have a worker of a pool end by SIGTERM: pools end theirs so, and wait for them.

        Pascal VOC's and OpenImages' evaluators have one.
        """
        if self.before and "PoolWorker" in current_process().name:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        again = self.asked is not None and time.monotonic() - self.since > self.patience
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.asked is None:
            self.asked, self.since = signal.Signals(number), time.monotonic()
            # launchers end for good, after 30 s, what hangs: let it say where
            if get_world_size() > 1:
                faulthandler.dump_traceback_later(_HANGS, file=2)  # stderr, whoever has replaced it

    def _stop(self, runner: Any, number: int, meta: dict[str, int]) -> None:
        what = f"stopped by {signal.Signals(number).name} after iteration {meta['iter']}"
        hooks = [hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)]
        for hook in hooks:
            what += f": saved {hook.save_interrupted(runner, meta)}"
        runner.logger.warning(f"{what}. Go on with --resume (exit code {RESUME_ME})")
        runner.visualizer.close()
        faulthandler.cancel_dump_traceback_later()
        self.after_train(runner)
        if get_world_size() > 1:  # when the first one ends, launchers send SIGTERM to the others
            for each in _SIGNALS:
                signal.signal(each, signal.SIG_IGN)
            barrier()
        sys.exit(RESUME_ME)
