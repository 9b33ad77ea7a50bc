"""How mmengine reads checkpoints here: safely, whatever the way it comes to a file.

mmengine 0.10.12 unpickles unsafely whatever torch's safe unpickler refuses, and mmengine 0.10.7
cannot read back its own runs' state. Both read files through ``CheckpointLoader``, so one loader
registered there serves ``init_cfg``, ``load_from``, ``--resume``, testing and the Inferencers.
"""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier as wait_for_all
from mmengine.dist import get_rank, is_distributed, master_only
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

from agent_attention.safe_load import CheckpointError, RefusedCall, load_file


def install_safe_loader() -> None:
    """Make mmengine read local files and addresses through ``load_file``."""
    CheckpointLoader.register_scheme("", load_local, force=True)
    CheckpointLoader.register_scheme(["http://", "https://"], load_address, force=True)


def load_local(filename: str, map_location: Any = None) -> Any:
    """Read a local checkpoint with tensors on the CPU, from where models and optimizers take them.

    Raises:
        CheckpointError: if the file cannot be read safely; the message names it.
    """
    return load_file(Path(filename).expanduser(), _RUN_STATE)


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


def _history_method(owner: Any, name: str) -> None:
    """``getattr`` as a run's state uses it, for functions that ``_History`` drops."""
    if owner is not _History or name.startswith("_"):
        raise RefusedCall(f"it looks up {name} in {getattr(owner, '__name__', owner)}")


_RUN_STATE = {
    ("mmengine.logging.history_buffer", "HistoryBuffer"): _History,
    ("builtins", "getattr"): _history_method,
}
