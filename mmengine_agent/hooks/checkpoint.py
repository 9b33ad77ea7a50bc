"""Atomic writes of checkpoints; the one before stays until the next is safe."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from mmengine_agent.errors import UserError
from mmengine_agent.files import describe_disk, disk_is_full, write_file
from mmengine_agent.resume.newest import INTERRUPTED, POINTER, point_at

WHOLE = "whole_file"  # the backend below
OBSOLETE = "obsolete_checkpoints"  # in the message hub: to be removed once the next one is safe


class WholeFileBackend(LocalBackend):
    """mmengine's local files, written atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_file(Path(filepath), obj)


register_backend(WHOLE, WholeFileBackend, force=True)


class RemoveLater:
    """A file backend that only notes what is to be removed."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.noted: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.noted.append(path)


@HOOKS.register_module(force=True)
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` with its arguments, files and names, and these promises.

    - A checkpoint and the pointer ``last_checkpoint`` are written to temporary files, flushed to
      the disk, and renamed. The pointer never names a file that is not there whole.
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
        if is_main_process():
            self._remove_parts(runner)
            self._point_at_beginning(runner)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Save the best one later, when all hooks have heard of the metrics and can be saved."""
        self.metrics = metrics

    def after_val(self, runner: Any) -> None:
        """Save the best one, and again the newest one, which names it."""
        metrics, self.metrics = self.metrics, None
        if metrics is not None:
            super().after_val_epoch(runner, metrics)

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
        self._save_as(runner, INTERRUPTED, meta)
        return str(self.last_ckpt)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        """What mmengine calls for each checkpoint; theirs removes first, then saves."""
        obsolete = self._obsolete(runner, step)
        runner.message_hub.update_info(OBSOLETE, obsolete)
        self._save_as(runner, self.filename_tmpl.format(step), meta)
        self._remove([*obsolete, INTERRUPTED])

    def _save_best_checkpoint(self, runner: Any, metrics: dict[str, Any]) -> None:
        """mmengine's own, with the removal of the best one before put off to the end."""
        if self.save_best:
            with self._full_disk(runner):
                super()._save_best_checkpoint(runner, metrics)
            self._remove(self._noted())

    def _obsolete(self, runner: Any, step: int) -> list[str]:
        """Names of the files that the checkpoint of ``step`` replaces; it is noted as kept."""
        obsolete = self._noted()
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                obsolete.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        return obsolete

    def _noted(self) -> list[str]:
        """Names of the files that mmengine would have removed by now."""
        names = [Path(path).name for path in self.file_backend.noted]
        self.file_backend.noted.clear()
        return names

    def _save_as(self, runner: Any, name: str, meta: dict[str, Any]) -> None:
        """Save, and then point at it."""
        runner.call_hook("before_saving_in_every_process", meta=meta)
        path = self._path(name)
        runner.message_hub.update_info("last_ckpt", path)
        with self._full_disk(runner):
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_file(Path(runner.work_dir, POINTER), path)
        self.last_ckpt = path

    def _remove_parts(self, runner: Any) -> None:
        """Remove what a killed run left half-written."""
        parts = [Path(runner.work_dir, f"{POINTER}.part")]
        if "://" not in str(self.out_dir):
            parts += Path(self.out_dir).glob("*.pth.part")
        for part in parts:
            part.unlink(missing_ok=True)

    def _point_at_beginning(self, runner: Any) -> None:
        """Point at what this run goes on from, or at nothing."""
        named = runner.cfg.get("load_from") if runner.cfg.get("resume") else None
        if runner.cfg.get("resume") and not named:
            return  # mmengine itself went where the pointer points
        with self._full_disk(runner):
            point_at(runner.work_dir, named)

    @contextmanager
    def _full_disk(self, runner: Any) -> Iterator[None]:
        """Say what to do about a full disk."""
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

    def _path(self, name: str) -> str:
        return str(self.file_backend.join_path(self.out_dir, name))

    @master_only
    def _remove(self, names: list[str]) -> None:
        backend = self.file_backend.backend
        for path in map(self._path, names):
            if backend.isfile(path):
                backend.remove(path)
