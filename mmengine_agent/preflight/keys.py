"""Settings of a config that nothing reads: slips of the pen, with the name that was meant.

A config is compared with those that it inherits from, and what ``--cfg-options`` made of it with
the file. A key that is new in a part of it is a slip if the part's class does not take it, and
another key of the part, or an argument of the class, has almost the same name. What resembles
nothing is left to the class, which refuses it.
"""

import inspect
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.runner import Runner

from mmengine_agent.config_walk import walk

_REGISTRIES = (
    *("MODELS", "TASK_UTILS", "DATASETS", "TRANSFORMS", "DATA_SAMPLERS", "HOOKS", "LOOPS"),
    *("OPTIMIZERS", "OPTIM_WRAPPERS", "PARAM_SCHEDULERS", "METRICS", "EVALUATOR"),
    *("VISUALIZERS", "VISBACKENDS", "LOG_PROCESSORS"),
)
# what tools and launchers read at the top of a config, though the runner does not
_TOP = {"custom_imports", "model_wrapper_cfg", "find_unused_parameters", "compile", "runner_type"}
_TOP |= {"tta_model", "tta_pipeline", "activation_checkpointing"}
_TOP |= inspect.signature(Runner).parameters.keys()
_ANYWHERE = {"type", "init_cfg", "by_epoch"}  # builders take them out before a class is called
_PARAMWISE = {"bias_lr_mult", "bias_decay_mult", "norm_decay_mult", "flat_decay_mult"}
_PARAMWISE |= {"layer_decay_rate"}
_FREE = {"custom_keys", "metainfo", "data_prefix", "dist_cfg", "init_kwargs"}  # keys are data
_NEAR = 0.7  # of the letters in common


def unread_keys(cfg: Config, options: dict[str, Any]) -> Iterator[str]:
    """What of a config, or of ``--cfg-options``, nothing reads, with the nearest known name."""
    variables = {option: option.partition(".")[0] for option in options}
    for option, name in variables.items():
        if name not in _TOP:
            yield _late_option(cfg, option, name)
    file = [Config.fromfile(cfg.filename)] if options and cfg.filename else []
    for before, after in pairwise([_inherited(cfg.filename), *file, cfg]):
        known = {path: set(node) for path, node in walk(before.to_dict())}
        for name in sorted(after.keys() - before.keys() - _TOP - {*variables.values()}):
            variant = name.endswith("_pipeline") or any(name.startswith(f"{top}_") for top in _TOP)
            near = get_close_matches(name, _TOP, 1, 0.85)
            if near and not variant:  # others are variables of the file
                yield f"config: {name}: nothing reads it; did you mean {near[0]}?"
        for path, node in walk(after.to_dict()):
            parts = path.split(".")
            new_part = path not in known and parts[0] == "model"  # its class refuses slips
            if parts[0] in _TOP and not new_part and not _FREE.intersection(parts):
                scope = node.get("_scope_") or cfg.get("default_scope") or "mmengine"
                names = known.get(path, set()) | (
                    _PARAMWISE if parts[-1] == "paramwise_cfg" else set()
                )
                yield from _slips(path, node, names, scope)


def _late_option(cfg: Config, option: str, name: str) -> str:
    """On an option that sets a variable of the file, which has been read by then."""
    places = [f"{path}.{name}" for path, node in walk(cfg.to_dict()) if path and name in node]
    if places:
        return f"config: {option}: nothing reads it any more; what counts is {places[0]}"
    near = get_close_matches(name, _TOP, 1)
    return f"config: {option}: nothing reads it" + (f"; did you mean {near[0]}?" if near else "")


def _slips(path: str, node: dict[str, Any], known: set[str], scope: str) -> Iterator[str]:
    """The new keys of one part of a config that its class does not take, and that resemble one."""
    new = {key for key in node.keys() - known - _ANYWHERE if isinstance(key, str)}
    taken = _arguments(node.get("type"), scope) if new else set()
    for key in sorted(new - taken):
        # ``ga_assigner`` next to ``assigner`` has one word more, and is no slip
        names = [name for name in known | taken if not key.endswith(f"_{name}")]
        near = get_close_matches(key, sorted(names), 1, _NEAR)
        if near:
            yield f"config: {path}.{key}: nothing reads it; did you mean {near[0]}?"


def _inherited(file: str | None) -> Config:
    """What a config file inherits: all of its ``_base_`` together."""
    if not file or not Path(file).is_file():
        return Config()
    bases = [
        base if "::" in base else str(Path(file).absolute().parent / base)
        for base in Config._get_base_files(file)
    ]
    return Config.fromstring(f"_base_ = {bases}", ".py")


@cache
def _arguments(kind: Any, scope: str) -> set[str]:
    """What the classes of a ``type``, in all registries, and their parents take by name."""
    names: set[str] = set()
    for target in [_found(each, kind, scope) for each in _REGISTRIES] if kind else []:
        for each in getattr(target, "__mro__", [target]):
            try:
                names |= inspect.signature(each).parameters.keys()
            except (TypeError, ValueError):  # nothing found, or C code
                continue
    return names


def _found(name: str, kind: Any, scope: str) -> Any:
    """The class of a type; None if the registry of that name does not know it."""
    try:
        with getattr(registries, name).switch_scope_and_registry(scope) as scoped:
            return scoped.get(kind) if isinstance(kind, str) else kind
    except (KeyError, ImportError, RuntimeError):
        return None
