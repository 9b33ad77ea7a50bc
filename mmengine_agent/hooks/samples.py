"""Samples that cannot be loaded: the run stops and names them, or leaves them out and counts them.

Workers of data loaders are processes of their own. What they leave out they append to a file of
their rank in the work directory, so nothing is lost if the run ends; a hook reads it in the main
process. mmengine's data sets draw another sample when a pipeline gives None.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmengine_agent.data.checked_loading import check_loading
from mmengine_agent.task import task_of

_SHOWN = 10


@HOOKS.register_module(force=True)
class BadSamplesHook(Hook):
    """Checks what is loaded, and stops the run at bad samples or reports how many were left out.

    In validation and testing no sample can stand in for another: a bad one ends the run.

    The loops of epochs start their workers after this hook has put its checks into the data sets.
    mmengine's loop of iterations starts them earlier; ``ExactResumeHook`` starts them again.

    Args:
        policy: 'error' stops at the first bad sample, 'skip' trains without.
        log_dir: folder for the files of bad samples, ``bad_samples.RANK.txt``.
    """

    priority = "VERY_HIGH"

    def __init__(self, policy: str, log_dir: str) -> None:
        self.policy = policy
        self.log = Path(log_dir, f"bad_samples.{get_rank()}.txt")
        self.begin = len(self._lines())  # what an earlier run left is not of this one
        self.known: set[str] = set()

    def before_train(self, runner: Any) -> None:
        """Check what is trained on."""
        self._check(runner, runner.train_loop, self.log if self.policy == "skip" else None)

    def before_val(self, runner: Any) -> None:
        """Check what is validated on."""
        self._check(runner, runner.val_loop)

    def before_test(self, runner: Any) -> None:
        """Check what is tested on."""
        self._check(runner, runner.test_loop)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Report what this rank's workers have left out, each sample once."""
        if self.policy == "skip":
            new = [line for line in self._lines()[self.begin :] if line not in self.known]
            self.known.update(new)
            if new:
                runner.logger.warning(f"left out: {summary(new)}")

    def after_train(self, runner: Any) -> None:
        """Report the whole run, of all ranks."""
        if self.policy == "skip":
            gathered = all_gather_object(self._lines()[self.begin :])
            lines = [line for lines in gathered for line in lines]
            place = f"\nAll are in {self.log.with_name('bad_samples.*.txt')}" if lines else ""
            runner.logger.warning(f"bad samples: {summary(lines)}{place}")

    def _check(self, runner: Any, loop: Any, log: Path | None = None) -> None:
        dataset = loop.dataloader.dataset
        names = getattr(dataset, "metainfo", {}).get("classes")
        check_loading(dataset, log, task_of(runner.cfg).label_check(names))

    def _lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []


def summary(lines: list[str]) -> str:
    """A message on lines of a log: how many samples, how often, and the first of them."""
    times = Counter(lines)
    listed = [f"  {line} ({count} times)" for line, count in [*times.items()][:_SHOWN]]
    more = [f"  and {len(times) - _SHOWN} more"] * (len(times) > _SHOWN)
    return "\n".join([f"{len(times)} samples (met {len(lines)} times)", *listed, *more])
