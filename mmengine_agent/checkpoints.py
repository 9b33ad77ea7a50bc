"""How mmengine reads checkpoints here: safely, whatever the way it comes to a file.

mmengine 0.10.12 unpickles unsafely whatever torch's safe unpickler refuses, and mmengine 0.10.7
cannot read back its own runs' state. Both read files through ``CheckpointLoader``, so one loader
registered there serves ``init_cfg``, ``load_from``, ``--resume``, testing and the Inferencers.
"""

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier as wait_for_all
from mmengine.dist import get_rank, is_distributed, master_only
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from agent_attention.weights.allowed import inert_attribute, is_inert
from agent_attention.weights.read import CheckpointError, load_file
from mmengine_agent.config_text import drop_code


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
    drop_code(content)
    if isinstance(content, dict) and "param_schedulers" in content:
        content["param_schedulers"] = without_functions(content["param_schedulers"])
    return content


def without_functions(state: Any) -> Any:
    """States of schedulers without what is no data, such as the methods that ``OneCycleLR`` keeps.

    Args:
        state: the state of one, or a list or dict of states.
    """
    if isinstance(state, list):
        return [without_functions(each) for each in state]
    if type(state) is not dict:  # a Counter of milestones, too, is a value
        return state
    kept = {key: each for key, each in state.items() if not (callable(each) or is_inert(each))}
    return {key: without_functions(each) for key, each in kept.items()}


def load_address(filename: str, map_location: Any = None) -> Any:
    """Download a checkpoint once, into torch's cache, and read it.

    Raises:
        CheckpointError: if it cannot be downloaded or read safely; the message names it.
    """
    path = _cached(filename)
    _download(filename, path)
    if is_distributed():
        wait_for_all()
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


@master_only
def _download(address: str, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(address, str(path), progress=get_rank() == 0)
    except OSError as error:
        raise CheckpointError(f"cannot download {address}: {error}") from error


def _cached(address: str) -> Path:
    """Where a download is kept; the address's digest tells files of one name apart."""
    digest = hashlib.sha256(address.encode()).hexdigest()[:12]
    name = Path(urlparse(address).path).name or "checkpoint"
    return Path(torch.hub.get_dir(), "checkpoints", f"{digest}-{name}")


class _History(HistoryBuffer):
    """A ``HistoryBuffer`` in the making, without the functions of its file.

    Its own ``__setstate__`` hands them to every buffer of the process.
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        methods = ("statistics_methods", "_statistics_methods")
        self._set_default_statistics()
        self.__dict__.update({key: value for key, value in state.items() if key not in methods})
        self.__class__ = HistoryBuffer  # what is saved again must be as mmengine's own


def _method(owner: Any, name: str) -> Any:
    """``getattr`` as a run's state uses it: functions of ``_History``, which drops them."""
    if owner is not _History or name.startswith("_"):
        return inert_attribute(owner, name)
    return None


# mmengine's lists of models, by the scheme of their names
_LISTS = {
    "modelzoo": "get_torchvision_models",
    "torchvision": "get_torchvision_models",
    "open-mmlab": "get_external_models",
    "openmmlab": "get_external_models",
}
_RUN_STATE = {
    ("mmengine.logging.history_buffer", "HistoryBuffer"): _History,
    ("builtins", "getattr"): _method,
}
