"""All checks, and their one list."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmengine_agent.errors import Problem, UserError
from mmengine_agent.preflight.keys import unread_keys
from mmengine_agent.preflight.machine import (
    loader_problems,
    process_problems,
    work_dir_problems,
)
from mmengine_agent.preflight.model import class_problems
from mmengine_agent.task import task_of


def require_ready(
    cfg: Config, *others: Callable[[], None], options: dict[str, Any] | None = None
) -> None:
    """Raise one UserError with everything that would stop a training, or spoil it in silence.

    Args:
        cfg: the config as it will be run.
        others: checks that raise UserError themselves; they come first, and may change the config.
        options: what ``--cfg-options`` changed.
    """
    init_default_scope(cfg.get("default_scope") or "mmdet")
    _raise_all([*_raised(others), *problems(cfg, options or {})], "training")


def require_sound(cfg: Config) -> None:
    """Raise one UserError with what would stop a test for its data."""
    _raise_all(list(task_of(cfg).data_problems(cfg, ("test",))), "testing")


def problems(cfg: Config, options: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with a training."""
    yield from map(Problem, unread_keys(cfg, options))
    splits = ("train", "val") if cfg.get("val_cfg") is not None else ("train",)
    yield from task_of(cfg).data_problems(cfg, splits)
    yield from class_problems(cfg)
    yield from loader_problems(cfg)
    yield from process_problems(cfg)
    yield from work_dir_problems(cfg)


def _raise_all(found: list[Problem], what: str) -> None:
    """Print the warnings among what was found, and raise UserError with the rest."""
    stops = []
    for problem in dict.fromkeys(found):
        if problem.fatal:
            stops.append(problem.text)
        else:
            print(f"warning: {problem.text}", file=sys.stderr)
    if len(stops) == 1:
        raise UserError(stops[0])
    if stops:
        listed = "\n".join(f"{number}. {each}" for number, each in enumerate(stops, 1))
        raise UserError(f"{len(stops)} things to mend before {what}:\n{listed}")


def _raised(checks: tuple[Callable[[], None], ...]) -> Iterator[Problem]:
    for check in checks:
        try:
            check()
        except UserError as error:
            yield Problem(str(error))
