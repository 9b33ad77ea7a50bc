"""Reads checkpoint files without running anything that is in them.

A pickle names functions and has them called, so unpickling a stranger's file runs the stranger's
code. Here only what rebuilds tensors and plain containers is real; any other class becomes an inert
stand-in without behaviour, and a file that has anything else called is refused by name.
"""

import collections
import os
import pickle
import tarfile
import types
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names that protocol 2 uses
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from agent_attention.weights.allowed import (
    Globals,
    Inert,
    InertType,
    RefusedCall,
    allowed_globals,
)
from agent_attention.weights.archive import archive_damage, is_archive, part_sizes

__all__ = ["CheckpointError", "Inert", "RefusedCall", "load_file"]

_PlainUnpickler: Any = pickle._Unpickler
_MOST_PARTS = 1_000_000  # of a tuple, those of the tuples in it included


class CheckpointError(ValueError):
    """A checkpoint file that cannot be read, or may not be; the message names file and reason."""


def load_file(path: str | Path, allow: Globals | None = None) -> Any:
    """Read a checkpoint, tensors on the CPU.

    Args:
        path: a file written by ``torch.save``, of any age, or a ``.safetensors`` file.
        allow: further globals that may be real, by (module, name), such as a class of a framework.

    Returns:
        What was saved; objects of unknown classes are ``Inert``.

    Raises:
        CheckpointError: if the file is missing, damaged, no checkpoint, or wants something called.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path)
        _refuse_forced_unpickler(path)
        sizes = _check_container(path)
        module = _pickle_module({**allowed_globals(), **(allow or {})}, sizes)
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=module)
    except RefusedCall as error:
        raise CheckpointError(
            f"refused to read {path}: {error}, and a checkpoint must not"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        words = " ".join(str(error).split())  # of a KeyError, the key alone
        reason = words if " " in words else f"{type(error).__name__} {words}".rstrip()
        raise CheckpointError(
            f"cannot read {path}, it is damaged or no checkpoint: {reason}"
        ) from error


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file as load
    except ImportError as error:
        raise CheckpointError(f"reading {path} needs: pip install safetensors") from error
    return load(path)


def _refuse_forced_unpickler(path: Path) -> None:
    """With this variable torch takes no unpickler but its own, not even a stricter one."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    if os.environ.get(variable, "").lower() in ("1", "y", "yes", "true"):
        raise CheckpointError(
            f"cannot read {path} with {variable} set: unset it, files are read as strictly without"
        )


def _check_container(path: Path) -> dict[str, int] | None:
    """Bytes of each part of an archive that is whole; None for a file of torch before 1.6.

    ``torch.load`` hands some archives to other readers. TorchScript holds code. The tar archives of
    torch before 0.1.10 are unpacked, and a link in one changes the mode and time of any file.
    """
    if not is_archive(path):
        if tarfile.is_tarfile(path):
            raise CheckpointError(
                f"refused to read {path}: it is a tar archive, of torch before 0.1.10"
            )
        return None
    sizes = part_sizes(path)
    if "constants.pkl" in sizes:  # as torch.load asks
        raise CheckpointError(f"refused to read {path}: it is a TorchScript program")
    if problem := archive_damage(path):
        raise ValueError(problem)
    return sizes


def _pickle_module(allowed: Globals, sizes: dict[str, int] | None) -> Any:
    """What ``torch.load`` takes as ``pickle_module``: an unpickler that finds only ``allowed``.

    Args:
        allowed: what is real, by (module, name).
        sizes: bytes of each part of an archive.
    """

    real = [kind for kind in allowed.values() if isinstance(kind, type)]
    changeable = (Inert, collections.OrderedDict, *(k for k in real if "__setstate__" in vars(k)))
    changeable = tuple(k for k in changeable if k.__module__.split(".")[0] != "torch")

    # In Python, not C: its memo is a dict, where C allocates as many places as a file says.
    class Unpickler(_PlainUnpickler):
        dispatch: ClassVar[Any] = dict(_PlainUnpickler.dispatch)

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.sizes: dict[int, tuple[int, tuple[Any, ...]]] = {}

        def load_binpersid(self) -> None:
            if sizes is not None:
                _refuse_wrong_size(self.stack[-1], sizes)
            super().load_binpersid()

        dispatch[pickle.BINPERSID[0]] = load_binpersid

        for (code,) in (pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.TUPLE):
            dispatch[code] = _limited(dispatch[code])

        def load_build(self) -> None:
            target, state = self.stack[-2:]
            if not isinstance(target, changeable) and not _is_state_numpy_writes(target, state):
                raise RefusedCall(
                    f"it changes {getattr(target, '__name__', type(target).__name__)}"
                )
            super().load_build()

        dispatch[pickle.BUILD[0]] = load_build

        def find_class(self, module: str, name: str) -> Any:
            module, name = NAME_MAPPING.get(
                (module, name), (IMPORT_MAPPING.get(module, module), name)
            )
            if (module, name) in allowed:
                return allowed[module, name]
            if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            return InertType(str(name), (Inert,), {"__module__": module})

    def load(file: Any, **kwargs: Any) -> Any:
        return Unpickler(file, **kwargs).load()

    return types.SimpleNamespace(Unpickler=Unpickler, load=load, __name__="safe_pickle")


def _is_state_numpy_writes(target: Any, state: Any) -> bool:
    """Whether NumPy itself would write this state; NumPy trusts it with memory."""
    if type(target).__module__.partition(".")[0] != "numpy":
        return False
    import numpy as np

    if isinstance(target, np.dtype):
        return state == target.newbyteorder(state[1]).__reduce__()[2]
    return isinstance(target, np.ndarray) and isinstance(state[4], bytes)


def _refuse_wrong_size(storage: Any, sizes: dict[str, int]) -> None:
    """Some torch read as many bytes as the pickle says, and not as the part has."""
    _, kind, key, _, count = storage
    wanted = count * torch._utils._element_size(kind.dtype)
    if not isinstance(key, str) or wanted != sizes.get(f"data/{key}"):
        raise RefusedCall(f"it takes {wanted} bytes of a part of {sizes.get(f'data/{key}')}")


def _limited(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """The opcode that makes a tuple, with a limit on its size."""

    def load_tuple(unpickler: Any) -> None:
        load(unpickler)
        _limit_tuple_size(unpickler.stack[-1], unpickler.sizes)

    return load_tuple


def _limit_tuple_size(made: tuple[Any, ...], sizes: dict[int, tuple[int, tuple[Any, ...]]]) -> None:
    """A tuple nested 40 deep in pairs has 2**40 parts to hash, for hours. Many are refused.

    ``sizes`` keeps the tuples that it knows alive, so that no other one gets their id.
    """
    size = len(made) + sum(sizes[id(each)][0] for each in made if id(each) in sizes)
    if size > _MOST_PARTS:
        raise RefusedCall(f"it nests tuples to {size} parts")
    if size > 1:
        sizes[id(made)] = size, made
