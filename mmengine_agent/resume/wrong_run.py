"""A checkpoint that is whole and yet not one of this run: one message instead of a traceback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import index
from typing import Any

from agent_attention.weights.read import CheckpointError
from mmengine_agent.errors import UserError


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
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"--resume: {path} is not of a run of this config ({reason}); to start from its "
            f"weights alone: --cfg-options load_from={path}"
        ) from error


def load_or_explain(runner: Any, load: Callable[[], None]) -> None:
    """Load a run by ``load``, with ``checkpoint_errors``."""
    with checkpoint_errors(runner):
        load()
        if min(index(runner.epoch), index(runner.iter)) < 0:
            raise ValueError(f"epoch {runner.epoch}, iteration {runner.iter}")
