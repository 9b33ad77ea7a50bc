"""A hook that does to its process what clusters do; named in the configs of ``processes.py``."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class FaultHook(Hook):
    """Raises, stalls or kills its process.

    Args:
        faults: (iteration, process, 'raise' | 'stall' | 'kill' | 'terminate') of each, from 1 on.
        folder: for one file a fault, so that each happens once however often the run begins anew.
    """

    priority = "VERY_LOW"

    def __init__(self, faults: list[tuple[int, int, str]], folder: str) -> None:
        rank = int(os.environ.get("RANK", "0"))
        self.faults = {iteration: what for iteration, who, what in faults if who == rank}
        self.folder = Path(folder)

    def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        """Do what is due at this iteration, once."""
        iteration = runner.iter + 1
        mark = self.folder / f"fault.{iteration}"
        if iteration not in self.faults or mark.exists():
            return
        mark.write_text(str(time.time()))
        what = self.faults[iteration]
        if what == "raise":
            raise ArithmeticError(f"a fault of process {os.environ.get('RANK', '0')}")
        if what == "stall":
            time.sleep(600)
        os.kill(os.getpid(), signal.SIGKILL if what == "kill" else signal.SIGTERM)
