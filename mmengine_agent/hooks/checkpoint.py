"""Atomic writes of checkpoints; the one before stays until the next is safe."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from mmengine_agent.errors import UserError
from mmengine_agent.files import describe_disk, disk_is_full
from mmengine_agent.resume.backends import WHOLE, RemoveLater
from mmengine_agent.resume.newest import INTERRUPTED, point_at

OBSOLETE = "obsolete_checkpoints"  # in the message hub: to be removed once the next one is safe


@HOOKS.register_module(force=True)
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` with its arguments, files and names, and these promises.

    - A checkpoint is written to a temporary file, flushed to the disk, and renamed. The pointer
      ``last_checkpoint`` is written after it, and never names a file that is not there whole.
    - The pointer names what a run goes on from, from its first moment: one that resumes points at
      the checkpoint that it resumed, one that begins removes the pointer of another run.
    - Old checkpoints, also the best one before, are removed after the new one is safe. So there is
      one more for a moment; a run that is killed in that moment removes it when it goes on.
    - A full disk ends the run with one message, and what was saved before is as it was.
    - ``save_interrupted`` saves at any iteration, into ``interrupted.pth``, which is removed after
      the next checkpoint.

    Checkpoints in an object store (``out_dir`` with ``://``) are written as the store does it.
    """

    backend_args: dict[str, Any] | None
    filename_tmpl: str
    max_keep_ckpts: int
    file_backend: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.metrics: dict[str, float] | None = None
        local = self.out_dir is None or "://" not in str(self.out_dir)
        if local and self.backend_args is None and self.file_client_args is None:
            self.backend_args = {"backend": WHOLE}

    def before_train(self, runner: Any) -> None:
        """Find the folder, and what an earlier run kept there; what it left half-written goes."""
        super().before_train(runner)
        self.file_backend = RemoveLater(self.file_backend)
        info = runner.message_hub.runtime_info
        if "last_ckpt" in info and Path(info["last_ckpt"]).parent == Path(self.out_dir):
            self.last_ckpt = info["last_ckpt"]
            self._remove(info.get(OBSOLETE, []))
        # the list itself: what mmengine has removed while it saves is saved too
        runner.message_hub.update_info(OBSOLETE, self.file_backend.noted)
        if not is_main_process():
            return
        if "://" not in str(self.out_dir):
            for part in Path(self.out_dir).glob("*.pth.part"):  # of a killed run
                part.unlink(missing_ok=True)
        resumed = runner.cfg.get("load_from") if runner.cfg.get("resume") else None
        if resumed or not runner.cfg.get("resume"):  # else mmengine went where the pointer points
            with self._explained(runner):
                point_at(runner.work_dir, resumed)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Save the best one later, when all hooks have heard of the metrics and can be saved."""
        self.metrics = metrics

    def after_val(self, runner: Any) -> None:
        """Save the best one, and again the newest one, which names it."""
        metrics, self.metrics = self.metrics, None
        if metrics is not None:
            with self._explained(runner):
                super().after_val_epoch(runner, metrics)
            self._remove_noted()

    def save_interrupted(self, runner: Any, meta: dict[str, int]) -> str:
        """Save at any iteration, into a file that ``--resume`` goes on from; the run may go on too.

        All processes call it at the same iteration, in ``after_train_iter`` at the latest. Weights,
        optimizer and buffers must be as they were when ``meta["iter"]`` iterations were done: a
        hook that leaves an iteration out puts back what its forward pass changed. Random states
        are saved as they are, in a validation as they were before it; schedules and averages as
        the hooks have left them, so a hook that wants the iteration counted has ``LOWEST``
        priority.

        Args:
            runner: it must be training.
            meta: ``epoch`` and ``iter``, the numbers of complete ones.

        Returns:
            The path of the checkpoint, ``interrupted.pth`` next to the others; the one before of
            that name is replaced, and the next ordinary checkpoint removes it.

        Raises:
            UserError: if the disk is full.
        """
        usual = self.filename_tmpl, self.max_keep_ckpts
        self.filename_tmpl, self.max_keep_ckpts = INTERRUPTED, 0
        try:
            self._save(runner, runner.iter, meta)
        finally:
            self.filename_tmpl, self.max_keep_ckpts = usual
        return str(self.last_ckpt)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        """What mmengine calls for each checkpoint; theirs removes first, then saves."""
        self._save(runner, step, meta)
        self._remove_noted()
        self._remove([INTERRUPTED])

    def _save(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        runner.call_hook("before_saving_in_every_process", meta=meta)
        with self._explained(runner):
            super()._save_checkpoint_with_step(runner, step, meta)

    @contextmanager
    def _explained(self, runner: Any) -> Iterator[None]:
        """What to do about a full disk."""
        try:
            yield
        except OSError as error:
            if not disk_is_full(error):
                raise
            folder = Path(self.out_dir)
            raise UserError(
                f"the disk {describe_disk(folder)} is full: no checkpoint of iteration "
                f"{runner.iter} could be saved in {folder}. What was saved before is whole: make "
                "room, and go on with --resume"
            ) from error

    def _remove_noted(self) -> None:
        self._remove(self.file_backend.noted)
        self.file_backend.noted.clear()

    @master_only
    def _remove(self, names: list[str]) -> None:
        """Remove checkpoints; DeepSpeed's are folders."""
        backend = self.file_backend.backend
        for name in names:
            path = backend.join_path(self.out_dir, name)
            if backend.isfile(path):
                backend.remove(path)
            elif backend.isdir(path):
                backend.rmtree(path)
