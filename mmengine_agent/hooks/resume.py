"""A resumed run that computes what an uninterrupted one does."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from operator import index
from typing import Any

from mmengine.dist import all_gather_object, broadcast, get_rank
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from agent_attention.weights.fit import unwrap
from agent_attention.weights.read import CheckpointError
from mmengine_agent.checkpoints import without_functions
from mmengine_agent.errors import UserError, one_line
from mmengine_agent.resume.data_order import LaterBatches, placed, rebuilt
from mmengine_agent.resume.random_state import random_state, set_random_state

KEY = "run_state"  # in a checkpoint


@HOOKS.register_module(force=True)
class ExactResumeHook(Hook):
    """Saves what mmengine does not, and goes on from it.

    mmengine resumes the model, its averages, the optimizer with its loss scaler, the schedules and
    the log. This adds, for each process, the random states of Python, NumPy, torch and its GPU, and
    the gradients of a step that is not complete; and the place in the data, also in the middle of
    an epoch, the counters of early stopping, and a validation that was due when the run ended.

    On the CPU the weights and metrics are those of an uninterrupted run, bit for bit, for any
    number of workers, as long as the config, the data and the number of processes stay. On a GPU
    the same numbers go in, but cuDNN and atomic additions round as they happen to:
    ``randomness.deterministic=True`` and ``env_cfg.cudnn_benchmark=False`` make most models exact,
    at some speed. What a model keeps in plain attributes (the size drawn by mmdet's
    ``BatchSyncRandomResize``) is not saved.

    Every loader gets a generator of its own, and every batch its own seed (``data_order``), so that
    augmentations differ from those of mmengine's stock hooks with the same seed.
    """

    priority = "LOWEST"  # what it saves and restores must be as the other hooks left it

    def __init__(self) -> None:
        self.loaded: dict[str, Any] | None = None
        self.gathered: dict[str, Any] | None = None
        self.before_validation: dict[str, Any] | None = None
        self.epoch = self.begun = 0  # the current epoch, and the iteration at its beginning
        self.validated = 0  # iteration of the last validation that was finished
        self.seed = 0

    # ---- saving

    def before_saving_in_every_process(self, runner: Any, meta: dict[str, Any]) -> None:
        """Gather what belongs into the next checkpoint; ``SafeCheckpointHook`` calls it."""
        mine = {
            "random": self.before_validation or random_state(),
            "gradients": _gradients(runner),
        }
        within = meta["epoch"] == self.epoch  # not at its end
        self.gathered = {
            "processes": all_gather_object(mine),
            "seed": self.seed,
            "batches": len(runner.train_loop.dataloader),
            "place": meta["iter"] - self.begun if within else 0,
            "validated": self.validated,
            "early_stopping": [
                [float(hook.best_score), hook.wait_count] for hook in _stoppers(runner)
            ],
        }

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add it, in the main process; the best checkpoints, which none resumes, go without.

        Functions in the states of schedulers are no data, and would take the optimizer with them.
        """
        if "param_schedulers" in checkpoint:
            checkpoint["param_schedulers"] = without_functions(checkpoint["param_schedulers"])
        if self.gathered is not None:
            checkpoint[KEY], self.gathered = self.gathered, None

    def before_val(self, runner: Any) -> None:
        """Keep the random states: a validation changes nothing for training.

        Without SyncBN each process has statistics of its own, and a checkpoint those of the first.
        All take those, which no training step reads, so that scores are those of the checkpoint.
        """
        self.before_validation = random_state()
        if runner.world_size > 1:
            for buffer in _model(runner).buffers():
                if buffer.is_floating_point():
                    broadcast(buffer)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Remember that it was finished."""
        self.validated = runner.iter

    def after_val(self, runner: Any) -> None:
        """Go back to the random states."""
        if self.before_validation is not None:
            set_random_state(self.before_validation)
        self.before_validation = None

    # ---- resuming

    def before_run(self, runner: Any) -> None:
        """Explain a checkpoint that does not fit; it is loaded next."""
        if runner.cfg.get("resume"):
            runner.load_or_resume = partial(load_or_explain, runner, runner.load_or_resume)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keep what the checkpoint says until everything is built.

        Raises:
            UserError: if the weights are of another model.
        """
        require_weights(runner, checkpoint)
        self.loaded = checkpoint.get(KEY)
        if self.loaded is not None and len(self.loaded["processes"]) == runner.world_size:
            runner.logger.addFilter(_gradients_are_kept)

    def before_train(self, runner: Any) -> None:
        """Put the data in order, and go back to what was saved, where the run is a resumed one."""
        state = self.loaded if runner.iter > 0 else None
        self.loaded = None
        runner.logger.removeFilter(_gradients_are_kept)
        if runner.iter > 0 and state is None:
            _warn(runner, "the checkpoint holds no run state: random numbers begin anew")
        if runner.val_loop is not None and runner.val_loop.dataloader.batch_sampler is not None:
            runner.val_loop.dataloader = rebuilt(runner.val_loop.dataloader)
        with checkpoint_errors(runner) if state is not None else nullcontext():
            sampler: Any = getattr(runner.train_dataloader.batch_sampler, "sampler", None)
            self.seed = getattr(sampler, "seed", runner.seed) if state is None else state["seed"]
            order_data(runner, self.seed, state)
            if state is not None:
                self._restore(runner, state)
        if state is not None and _is_validation_due(runner, self.validated):
            runner.val_loop.run()

    def before_train_epoch(self, runner: Any) -> None:
        """Note where the epoch began, were it whole."""
        batches = runner.train_loop.dataloader.batch_sampler
        self.epoch, self.begun = runner.epoch, runner.iter - getattr(batches, "skip", 0)

    def _restore(self, runner: Any, state: dict[str, Any]) -> None:
        self.validated = state["validated"]
        for hook, (score, count) in zip(_stoppers(runner), state["early_stopping"], strict=False):
            hook.best_score, hook.wait_count = score, count
        if len(state["processes"]) != runner.world_size:
            text = f"saved by {len(state['processes'])} processes, resumed by {runner.world_size}"
            _warn(runner, f"{text}: random numbers begin anew")
            return
        mine = state["processes"][get_rank()]
        for name, parameter in _model(runner).named_parameters():
            if name in mine["gradients"]:
                parameter.grad = mine["gradients"][name].to(parameter.device)
        set_random_state(mine["random"])


def require_weights(runner: Any, checkpoint: dict[str, Any]) -> None:
    """Raise UserError unless a checkpoint has all weights to resume from, or some to start from."""
    resume, path = runner.cfg.get("resume"), runner.cfg.get("load_from")
    if resume and "optimizer" not in checkpoint:
        raise ValueError("it has no optimizer")
    found = unwrap(checkpoint, backbone=False)
    wanted = dict(_model(runner).named_parameters())
    fit = sum(name in found and found[name].shape == wanted[name].shape for name in wanted)
    if fit < (len(wanted) if resume else 1):
        raise UserError(
            f"{path or 'the newest checkpoint'} does not fit the config: it has {fit} of the "
            f"model's {len(wanted)} weights. The config that training wrote next to it fits it"
        )


@contextmanager
def checkpoint_errors(runner: Any) -> Iterator[None]:
    """Turn errors of resuming, where mmengine trusts the checkpoint, into one that names it.

    Raises:
        UserError: for any error that is not one of the user's already.
    """
    try:
        yield
    except (UserError, CheckpointError, OSError):
        raise
    except Exception as error:
        path = runner.cfg.get("load_from") or f"the newest checkpoint of {runner.work_dir}"
        raise UserError(
            f"--resume: {path} is not of a run of this config ({one_line(error)}); to start from "
            f"its weights alone: --cfg-options load_from={path}"
        ) from error


def load_or_explain(runner: Any, load: Callable[[], None]) -> None:
    """Load a run by ``load``, with ``checkpoint_errors``."""
    with checkpoint_errors(runner):
        load()
        if min(index(runner.epoch), index(runner.iter)) < 0:
            raise ValueError(f"epoch {runner.epoch}, iteration {runner.iter}")


def order_data(runner: Any, seed: int, state: dict[str, Any] | None) -> None:
    """Give the training loop a loader that begins where the run goes on."""
    loop = runner.train_loop
    if not hasattr(loop.dataloader.batch_sampler, "sampler"):
        _warn(runner, "the training data is not drawn by batches of indices, and begins anew")
        return
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    loop.dataloader = placed(loop.dataloader, seed, get_rank(), endless=not by_epoch)
    batches = loop.dataloader.batch_sampler
    batches.drawn = batches.skip = loop.iter
    if isinstance(loop, IterBasedTrainLoop):
        loop.dataloader_iterator = LaterBatches(loop.dataloader, loop.iter)
    elif by_epoch:
        batches.skip = loop.first_index = 0 if state is None else index(state["place"])
        if state is not None and state["batches"] != len(batches):
            text = f"the data made {state['batches']} batches and makes {len(batches)}"
            _warn(runner, f"{text}: epoch {loop.epoch + 1} begins anew")
            batches.skip = loop.first_index = 0


def _is_validation_due(runner: Any, validated: int) -> bool:
    """Whether the run ended between an iteration and the validation that follows it."""
    loop = runner.train_loop
    if runner.val_loop is None or validated == loop.iter:
        return False
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    if by_epoch and getattr(loop.dataloader.batch_sampler, "skip", None):  # in an epoch's middle
        return False
    done, last = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
    loop._decide_current_val_interval()
    return bool(done >= loop.val_begin and (done % loop.val_interval == 0 or done == last))


def _gradients(runner: Any) -> dict[str, Any]:
    """Gradients that wait for more iterations, by parameter: none, unless they are accumulated."""
    named = _model(runner).named_parameters()
    return {name: each.grad.cpu() for name, each in named if each.grad is not None}


def _gradients_are_kept(record: logging.LogRecord) -> bool:
    """Keep mmengine from saying that the gradients of a step that is not complete are lost."""
    return "gradient of some iterations is lost" not in record.getMessage()


def _model(runner: Any) -> Any:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _stoppers(runner: Any) -> list[Any]:
    return [hook for hook in runner.hooks if isinstance(hook, EarlyStoppingHook)]


def _warn(runner: Any, text: str) -> None:
    runner.logger.log(logging.WARNING, f"resuming is not exact: {text}")
