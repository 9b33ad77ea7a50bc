"""How mmengine reads checkpoints here: safely, whatever the way it comes to a file.

mmengine 0.10.12 unpickles unsafely whatever torch's safe unpickler refuses, and mmengine 0.10.7
cannot read back its own runs' state. Both read files through ``CheckpointLoader``, so one loader
registered there serves ``init_cfg``, ``load_from``, ``--resume``, testing and the Inferencers.
"""

import ast
import datetime
import functools
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from agent_attention.weights.read import CheckpointError, RefusedError, StandIn, load_file


def install_safe_loader() -> None:
    """Make mmengine read files, addresses and its lists of models through ``load_file``.

    Other schemes, such as those of object stores, keep their loaders, which nothing here checks:
    each use is a warning.
    """
    CheckpointLoader.register_scheme("", load_local, force=True)
    CheckpointLoader.register_scheme(["http://", "https://"], load_address, force=True)
    CheckpointLoader.register_scheme([f"{name}://" for name in _LISTS], load_named, force=True)
    for prefix, load in list(CheckpointLoader._schemes.items()):
        if load not in (load_local, load_address, load_named) and not hasattr(load, "__wrapped__"):
            CheckpointLoader.register_scheme(prefix, _with_warning(load), force=True)


def load_local(filename: str, map_location: Any = None) -> Any:
    """Read a local checkpoint with tensors on the CPU, from where models and optimizers take them.

    Of the configs in it, which mmengine would run, those that hold code are dropped; and of the
    states of schedulers the functions, which are no data: a scheduler that is built has its own.

    Raises:
        CheckpointError: if the file cannot be read safely; the message names it.
    """
    content = load_file(Path(filename).expanduser(), _RUN_STATE)
    for *parts, key in (
        ("meta", "config"),
        ("meta", "cfg"),
        ("message_hub", "runtime_info", "cfg"),
    ):
        holder = content
        for part in parts:
            holder = holder.get(part) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and key in holder and not _is_data(holder[key]):
            del holder[key]
    if isinstance(content, dict) and "param_schedulers" in content:
        content["param_schedulers"] = without_functions(content["param_schedulers"])
    return content


def _is_data(text: Any) -> bool:
    """Whether a config is what mmengine writes: values, and types named as registries name them."""
    try:
        return all(map(_is_harmless, ast.walk(ast.parse(text))))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False


def _is_harmless(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[]):
            return True
        case ast.keyword(arg=str(key), value=value):
            return key != "type" or _is_type(value)
        case ast.Dict(keys=keys, values=values):
            return all(
                isinstance(key, ast.Constant) and (key.value != "type" or _is_type(value))
                for key, value in zip(keys, values, strict=True)
            )
        case ast.Constant(value=value):  # {{ }} is replaced before it is run
            return "{{" not in str(value)
    return isinstance(node, _HARMLESS)


def _is_type(node: ast.expr) -> bool:
    """A type with dots is looked up in any package, unless the first part is a registry's scope."""
    named = node.value if isinstance(node, ast.Constant) else "."
    return re.fullmatch(r"((mm\w+|agent_attention)\.)?\w+", str(named)) is not None


def without_functions(state: Any) -> Any:
    """States of schedulers without what is no data, such as the methods that ``OneCycleLR`` keeps.

    Args:
        state: the state of one, or a list or dict of states.
    """
    if isinstance(state, list):
        return [without_functions(each) for each in state]
    if type(state) is not dict:  # a Counter of milestones, too, is a value
        return state
    kept = {key: each for key, each in state.items() if not callable(each)}
    return {key: without_functions(each) for key, each in kept.items()}


def load_address(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint once, into torch's cache, and read it.

    Raises:
        CheckpointError: if it cannot be downloaded or read safely; the message names it.
    """
    # the address's digest tells files of one name apart
    digest = hashlib.sha256(filename.encode()).hexdigest()[:12]
    name = Path(urlparse(filename).path).name or "checkpoint"
    path = Path(torch.hub.get_dir(), "checkpoints", f"{digest}-{name}")
    if get_rank() == 0 and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(filename, str(path))
        except OSError as error:
            raise CheckpointError(f"cannot download {filename}: {error}") from error
    barrier()
    return load_local(str(path))


def load_named(filename: str, map_location: Any = None) -> Any:
    """Read a model of one of mmengine's lists, such as ``torchvision://resnet50``.

    Raises:
        CheckpointError: if no list has the name, or the file cannot be read safely.
    """
    scheme, _, name = filename.partition("://")
    models = getattr(mmengine_checkpoint, _LISTS[scheme])()
    name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    if name not in models:
        raise CheckpointError(f"there is no {filename}; {scheme}:// has {', '.join(models)}")
    place = models[name]
    if "://" not in place:  # of the user's own open_mmlab.json, which lies there
        place = str(Path(mmengine_checkpoint._get_mmengine_home(), place))
    return CheckpointLoader.load_checkpoint(place)


def _with_warning(load: Callable[..., Any]) -> Callable[..., Any]:
    """The loader of another scheme, with a warning."""

    @functools.wraps(load)
    def load_unchecked(filename: str, *args: Any, **kwargs: Any) -> Any:
        print_log(
            f"what {filename} holds is not checked here, and may run code. Download a file that "
            "you do not trust, and give its path",
            logger="current",
            level=logging.WARNING,
        )
        return load(filename, *args, **kwargs)

    return load_unchecked


class _History(HistoryBuffer, metaclass=StandIn):
    """A ``HistoryBuffer`` in the making, without the functions of its file.

    Its own ``__setstate__`` hands them to every buffer of the process.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_log_history"], state["_count_history"], state["max_length"])  # type: ignore[misc]
        self.__class__ = HistoryBuffer  # what is saved again must be as mmengine's own


class _ArrayType:
    """The type of an array, of numbers or text alone: others hold pointers, which NumPy trusts."""

    def __init__(self, name: Any, align: bool = False, copy: bool = False) -> None:
        if not re.fullmatch("[biufcSU][0-9]{1,4}", str(name)):
            raise RefusedError(f"it makes an array of type {name!r}")
        self.dtype = np.dtype(str(name))

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray, metaclass=StandIn):
    """An array, saved again as a plain one."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, by_columns, data = state
        super().__setstate__((1, shape, kind.dtype, by_columns, data))

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()


_HARMLESS = (
    *(ast.Module, ast.Assign, ast.Name, ast.Store, ast.Load),
    *(ast.List, ast.Tuple, ast.Set, ast.UnaryOp, ast.USub),
)
# mmengine's lists of models, by the scheme of their names
_LISTS = {
    "modelzoo": "get_torchvision_models",
    "torchvision": "get_torchvision_models",
    "open-mmlab": "get_external_models",
    "openmmlab": "get_external_models",
}
_RUN_STATE: dict[str, Any] = {
    "mmengine.logging.history_buffer.HistoryBuffer": _History,
    "numpy.dtype": _ArrayType,
    "numpy.ndarray": _Array,
    # what a hook of one's own may put into the message hub
    "builtins.frozenset": frozenset,
    "collections.defaultdict": lambda *args: {},
    "collections.deque": lambda *args: [],
    "pathlib.PosixPath": Path,
    "pathlib._local.PosixPath": Path,  # Python 3.13's
}
for _name in ("datetime", "date", "time", "timedelta", "timezone"):
    _RUN_STATE[f"datetime.{_name}"] = getattr(datetime, _name)
for _core in ("core", "_core"):  # the second is NumPy 2's
    _RUN_STATE |= {
        f"numpy.{_core}.multiarray._reconstruct": lambda *args: np.ndarray.__new__(_Array, 0),
        f"numpy.{_core}.multiarray.scalar": lambda kind, data: np.frombuffer(data, kind.dtype)[0],
    }
