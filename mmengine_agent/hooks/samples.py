"""Samples that cannot be loaded: the run stops and names them, or leaves them out and counts them.

Workers of data loaders are processes of their own. What they find they append to a file of their
rank in the work directory, so nothing is lost if the run ends; a hook reads it in the main process,
where all ranks stop at the same iteration. mmengine's data sets draw another sample when a pipeline
gives None.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmengine_agent.data.checked_loading import check_loading
from mmengine_agent.errors import UserError
from mmengine_agent.task import task_of

_SHOWN = 10


def log_of(folder: str) -> Path:
    """The file in which this rank notes bad samples."""
    return Path(folder, f"bad_samples.{get_rank()}.txt")


@HOOKS.register_module(force=True)
class BadSamplesHook(Hook):
    """Checks what is loaded, and stops the run at bad samples or reports how many were left out.

    In validation and testing no sample can stand in for another: a bad one ends the run.

    The loops of epochs start their workers after this hook has put its checks into the data sets.
    mmengine's loop of iterations starts them earlier; ``ExactResumeHook`` starts them again.

    Args:
        policy: 'error' stops all ranks at once, 'skip' trains without.
        log_dir: folder for the files of ``log_of``.
        interval: iterations between looks at the other ranks' files.
    """

    priority = "VERY_HIGH"

    def __init__(self, policy: str, log_dir: str, interval: int = 10) -> None:
        self.policy = policy
        self.log = log_of(log_dir)
        self.interval = interval
        self.begin = self.reported = self._size()  # what an earlier run left is not of this one
        self.known: set[str] = set()
        self.resumed = 0

    def before_train(self, runner: Any) -> None:
        """Check what is trained on."""
        self.resumed = runner.iter
        self._check(runner, runner.train_loop, self.log)

    def before_val(self, runner: Any) -> None:
        """Check what is validated on."""
        self._check(runner, runner.val_loop)

    def before_test(self, runner: Any) -> None:
        """Check what is tested on."""
        self._check(runner, runner.test_loop)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Look at what the workers have noted."""
        if get_world_size() == 1 or runner.iter % self.interval == 0:
            self._look(runner)

    def after_train(self, runner: Any) -> None:
        """Look once more, and report the whole run."""
        self._look(runner)
        if self.policy == "skip":
            lines = self._gather()
            since = f" since iteration {self.resumed}" if self.resumed else ""
            runner.logger.warning(f"bad samples{since}: {summary(lines)}" + self._place(lines))

    def _check(self, runner: Any, loop: Any, log: Path | None = None) -> None:
        dataset = loop.dataloader.dataset
        names = getattr(dataset, "metainfo", {}).get("classes")
        check = task_of(runner.cfg).label_check()
        check_loading(dataset, log, len(names) if names and check else None, check)

    def _look(self, runner: Any) -> None:
        """Stop all ranks if any has a bad sample, or report the new ones of this rank."""
        if self.policy == "error":
            lines = self._gather()
            if lines:
                raise UserError(
                    f"cannot load {summary(lines)}\n"
                    "`python tools/prepare_data.py check` finds all of them at once; "
                    "--on-bad-sample=skip trains without them" + self._place(lines)
                )
            return
        start, self.reported = self.reported, self._size()
        new = [line for line in self._lines(start) if line not in self.known]
        if new:  # each is reported once; the report at the end counts them all
            self.known.update(new)
            runner.logger.warning(f"left out: {summary(new)}")

    def _gather(self) -> list[str]:
        """The lines of this run of all ranks; all must ask."""
        return [line for lines in all_gather_object(self._lines(self.begin)) for line in lines]

    def _lines(self, start: int) -> list[str]:
        """The lines of the file from byte ``start`` on."""
        if self._size() <= start:
            return []
        return self.log.read_bytes()[start:].decode(errors="replace").splitlines()

    def _size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def _place(self, lines: list[str]) -> str:
        return f"\nAll are in {self.log.parent / 'bad_samples.*.txt'}" if lines else ""


def summary(lines: list[str]) -> str:
    """A message on lines of a log: how many samples, how often, and the first of them."""
    if not lines:
        return "none were left out"
    times = Counter(lines)
    listed = [
        f"  {line.replace(chr(9), ': ', 1)}" + (f" ({count} times)" if count > 1 else "")
        for line, count in list(times.items())[:_SHOWN]
    ]
    more = [f"  and {len(times) - _SHOWN} more"] if len(times) > _SHOWN else []
    samples, met = "s" * (len(times) != 1), "s" * (len(lines) != 1)
    head = f"{len(times)} sample{samples} (met {len(lines)} time{met}):"
    return "\n".join([head, *listed, *more])
