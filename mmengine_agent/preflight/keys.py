"""Settings of a config that nothing reads: slips of the pen, with the name that was meant.

A config is compared with those that it inherits from, and what ``--cfg-options`` made of it with
the file. A key that is new there is fine if the class of its ``type`` takes it. In a part without
a type, such as ``model.test_cfg``, it is a slip if a key of that part has almost the same name.
"""

import ast
import inspect
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmengine_agent.config_walk import walk

_REGISTRIES = (
    *("MODELS", "TASK_UTILS", "DATASETS", "TRANSFORMS", "DATA_SAMPLERS", "HOOKS", "LOOPS"),
    *("OPTIMIZERS", "OPTIM_WRAPPERS", "PARAM_SCHEDULERS", "METRICS", "VISUALIZERS"),
    *("VISBACKENDS", "LOG_PROCESSORS"),
)
# what builders take out before a class is called
_ALWAYS = {"type", "_scope_", "_delete_", "init_cfg", "priority", "by_epoch", "requires_grad"}
_ALWAYS |= {"convert_to_iter_based", "optimizer", "constructor", "paramwise_cfg"}
_ALWAYS |= {"num_batch_per_epoch", "backend_args", "file_client_args"}
# what tools, launchers and the runner read, though no argument of it
_TOP = {"custom_imports", "model_wrapper_cfg", "find_unused_parameters", "compile", "runner_type"}
_TOP |= {"tta_model", "tta_pipeline", "activation_checkpointing"}
_TOP |= inspect.signature(Runner).parameters.keys()
_PARAMWISE = {"custom_keys", "bias_lr_mult", "bias_decay_mult", "norm_decay_mult"}
_PARAMWISE |= {"flat_decay_mult", "dwconv_decay_mult", "dcn_offset_lr_mult", "bypass_duplicate"}
_PARAMWISE |= {"layer_decay_rate"}
_LOADER = {*inspect.signature(DataLoader).parameters}
# more names of parts without a type, next to those in the config before
_PARTS = {f"{split}_dataloader": _LOADER for split in ("train", "val", "test")}
_PARTS |= {"optim_wrapper.paramwise_cfg": _PARAMWISE}
_FREE = {"custom_keys", "metainfo", "data_prefix", "dist_cfg", "init_kwargs"}  # keys are data
_NEAR = 0.7  # of the letters in common


def unread_keys(cfg: Config, options: dict[str, Any]) -> Iterator[str]:
    """What of a config, or of ``--cfg-options``, nothing reads, with the nearest known name."""
    yield from _late_options(cfg, options)
    given = {option.partition(".")[0] for option in options}
    has_file = options and cfg.filename and Path(cfg.filename).is_file()
    file = [Config.fromfile(cfg.filename)] if has_file else []
    for before, after in pairwise([_inherited(cfg.filename), *file, cfg]):
        known = {path: set(node) for path, node in walk(before.to_dict())}
        yield from _top_slips(set(after) - set(before) - given)
        for path, node in walk(after.to_dict()):
            parts = path.split(".")
            if parts[0] in _TOP and not _FREE.intersection(parts):
                scope = node.get("_scope_") or cfg.get("default_scope") or "mmengine"
                yield from _slips(path, node, known.get(path, set()), scope)


def _late_options(cfg: Config, options: dict[str, Any]) -> Iterator[str]:
    """Options that set a variable of the file, which has been read by then."""
    for option in options:
        name = option.partition(".")[0]
        if name not in _TOP:
            places = [path for path, node in walk(cfg.to_dict()) if path and name in node]
            inside = ", ".join(f"{place}.{name}" for place in places[:3])
            why = f" any more; what counts is {inside}" if inside else ""
            yield _slip(option, f"nothing reads it{why}", name, () if inside else _TOP)


def _top_slips(names: set[str]) -> Iterator[str]:
    """Of all names of a config those that are almost one of mmengine's; others are variables."""
    for name in sorted(names - _TOP):
        variant = name.endswith("_pipeline") or any(name.startswith(f"{each}_") for each in _TOP)
        if not variant and get_close_matches(name, _TOP, 1, 0.85):
            yield _slip(name, "nothing reads it", name, _TOP)


def _slips(path: str, node: dict[str, Any], known: set[str], scope: str) -> Iterator[str]:
    """The new keys of one part of a config that its class does not take."""
    new = {key for key in node.keys() - known - _ALWAYS if isinstance(key, str)}
    kinds = _classes(node.get("type"), scope) if new else ()
    if node.get("type") and not kinds:
        return  # of another library, such as albumentations
    taken = [_arguments(kind) for kind in kinds]
    names = (known | _PARTS.get(path, set())).union(*(each for each, _ in taken))
    exact = bool(taken) and all(exact for _, exact in taken)
    if exact and not known and path.startswith("model."):
        return  # a new part of the model: its class refuses what nobody takes out before
    for key in sorted(new - names):
        # ``ga_assigner`` next to ``assigner`` has one word more, and is no slip
        near = [name for name in names if not key.endswith(f"_{name}")]
        if exact or get_close_matches(key, near, 1, _NEAR):
            who = f"{kinds[0].__name__} does not take it" if kinds else "there is no such key there"
            yield _slip(f"{path}.{key}", who, key, names)


def _slip(place: str, why: str, name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(names), 1, 0.6)
    return f"config: {place}: {why}{f'; did you mean {near[0]}?' if near else ''}"


def _inherited(file: str | None) -> Config:
    """What a config file inherits: all of its ``_base_`` together, as far as they are literals."""
    path = Path(file or "").absolute()
    try:
        for node in ast.parse(path.read_text()).body if path.suffix == ".py" else ():
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_base_":
                found = ast.literal_eval(node.value)
                bases = [found] if isinstance(found, str) else found
                places = [base if "::" in base else str(path.parent / base) for base in bases]
                return Config.fromstring(f"_base_ = {places}", ".py")
    except (ValueError, OSError):
        pass
    return Config()


@cache
def _classes(kind: Any, scope: str) -> tuple[Any, ...]:
    """The classes and functions of a ``type`` in all registries."""
    if not isinstance(kind, str):
        return () if kind is None else (kind,)
    found = []
    for name in _REGISTRIES:
        try:
            with getattr(registries, name).switch_scope_and_registry(scope) as registry:
                found.append(registry.get(kind))
        except (KeyError, ImportError, RuntimeError):
            continue
    return tuple({each for each in found if each is not None})


@cache
def _arguments(kind: Any) -> tuple[set[str], bool]:
    """The names that a class or function takes, its parents' too where it hands others on.

    Returns:
        The names, and whether these are all.
    """
    names: set[str] = set()
    classes = [each for each in getattr(kind, "__mro__", ()) if "__init__" in vars(each)]
    for place, target in enumerate([each.__init__ for each in classes] or [kind]):
        try:
            parameters = inspect.signature(target, follow_wrapped=False).parameters
        except (TypeError, ValueError):  # of C code
            return names, False
        names |= parameters.keys() - {"self", "args", "kwargs"}
        if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
            return names, place == 0
    return names, False
