"""All checks, and their one list."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmengine_agent.errors import UserError
from mmengine_agent.preflight.keys import unread_keys
from mmengine_agent.preflight.machine import loader_problems, process_problems, space_problems
from mmengine_agent.preflight.model import class_problems, fit_problems, model_of
from mmengine_agent.run.exit import process_number
from mmengine_agent.task import task_of

WARNING = "warning: "  # what a check says begins so if training can go on


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
    """Raise one UserError with what would stop a test for its data; the first process looks."""
    if process_number() == 0:
        _raise_all(list(task_of(cfg).data_problems(cfg, ("test",))), "testing")


def problems(cfg: Config, options: dict[str, Any]) -> Iterator[str]:
    """What is wrong, and warnings."""
    yield from unread_keys(cfg, options)
    splits = ("train", "val") if cfg.get("val_cfg") is not None else ("train",)
    yield from task_of(cfg).data_problems(cfg, splits)
    yield from class_problems(cfg)
    yield from loader_problems(cfg)
    yield from process_problems(cfg)
    try:
        model = model_of(cfg)
    except UserError as error:
        yield str(error)
        return
    yield from fit_problems(cfg, model)
    yield from space_problems(cfg, sum(each.numel() for each in model.parameters()))


def _raise_all(found: list[str], what: str) -> None:
    """Print the warnings among what was found, and raise UserError with the rest."""
    found = list(dict.fromkeys(found))
    for each in found:
        if each.startswith(WARNING):
            print(each, file=sys.stderr)
    stops = [each for each in found if not each.startswith(WARNING)]
    if len(stops) == 1:
        raise UserError(stops[0])
    if stops:
        listed = "\n".join(f"{number}. {each}" for number, each in enumerate(stops, 1))
        raise UserError(f"{len(stops)} things to mend before {what}:\n{listed}")


def _raised(checks: tuple[Callable[[], None], ...]) -> Iterator[str]:
    for check in checks:
        try:
            check()
        except UserError as error:
            yield str(error)
