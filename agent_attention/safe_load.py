"""Reads checkpoint files without running anything that is in them.

A pickle names functions and has them called, so unpickling a stranger's file runs the stranger's
code. Here only what rebuilds tensors and plain containers is real; any other class becomes an inert
stand-in without behaviour, and a file that has anything else called is refused by name.
"""

import collections
import os
import pickle
import re
import tarfile
import types
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING  # names that protocol 2 uses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch

_PlainUnpickler: Any = pickle._Unpickler
_Globals = Mapping[tuple[str, str], Any]


class CheckpointError(ValueError):
    """A checkpoint file that cannot be read, or may not be; the message names file and reason."""


class RefusedCall(Exception):
    """The file has something called that is not allowed; the message begins with 'it'."""


class _InertType(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        # pickle makes plain objects with __new__; whoever comes here wants a function called
        raise RefusedCall(f"it calls {cls.__module__}.{cls.__name__}")


class Inert(metaclass=_InertType):
    """Stands for an object of a class that is not known here, such as a yacs ``CfgNode``."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass


def load_file(path: str | Path, allow: _Globals | None = None) -> Any:
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
        _refuse_other_formats(path)
        module = _pickle_module({**_allowed(), **(allow or {})})
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=module)
    except RefusedCall as error:
        raise CheckpointError(
            f"refused to read {path}: {error}, and a checkpoint must not"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
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


def _refuse_other_formats(path: Path) -> None:
    """``torch.load`` hands some archives to other readers.

    TorchScript holds code. The tar archives of torch before 0.1.10 are unpacked, and a link in one
    changes the mode and time of any file it names.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    if is_zip:
        records = torch._C.PyTorchFileReader(str(path)).get_all_records()  # as torch.load asks
        if "constants.pkl" in records:
            raise CheckpointError(f"refused to read {path}: it is a TorchScript program")
    elif tarfile.is_tarfile(path):
        raise CheckpointError(
            f"refused to read {path}: it is a tar archive, of torch before 0.1.10"
        )


def _pickle_module(allowed: _Globals) -> Any:
    """What ``torch.load`` takes as ``pickle_module``: an unpickler that finds only ``allowed``."""

    real = [kind for kind in allowed.values() if isinstance(kind, type)]
    changeable = (Inert, collections.OrderedDict, *(k for k in real if "__setstate__" in vars(k)))
    changeable = tuple(k for k in changeable if k.__module__.split(".")[0] != "torch")

    # In Python, not C: its memo is a dict, where C allocates as many places as a file says.
    class Unpickler(_PlainUnpickler):
        dispatch: ClassVar[Any] = dict(_PlainUnpickler.dispatch)

        def load_build(self) -> None:
            target, state = self.stack[-2:]
            if not isinstance(target, changeable) and not _is_honest(target, state):
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
            return _InertType(str(name), (Inert,), {"__module__": module})

    def load(file: Any, **kwargs: Any) -> Any:
        return Unpickler(file, **kwargs).load()

    return types.SimpleNamespace(Unpickler=Unpickler, load=load, __name__="safe_pickle")


def _allowed() -> dict[tuple[str, str], Any]:
    """Everything that tensors, arrays and plain containers are pickled with."""
    plain: list[Callable[..., Any]] = [set, frozenset, slice, complex, bytes, bytearray, range]
    found = {("builtins", kind.__name__): kind for kind in plain}
    found["collections", "OrderedDict"] = collections.OrderedDict
    found["collections", "defaultdict"] = _default_dict
    found["_codecs", "encode"] = _encode
    found["copyreg", "_reconstructor"] = _reconstruct
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        found["torch._utils", name] = getattr(torch._utils, name)
    found["torch", "Size"] = torch.Size
    found["torch", "device"] = torch.device
    found["torch.nn.parameter", "Parameter"] = torch.nn.Parameter
    found["torch.storage", "UntypedStorage"] = torch.storage.UntypedStorage
    return found | _numpy_globals()


def _numpy_globals() -> dict[tuple[str, str], Any]:
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    try:
        import numpy as np
    except ImportError:  # weights need no arrays, which may lie beside them: stand-ins do
        names = [(module, name) for module in modules for name in ("_reconstruct", "scalar")]
        return dict.fromkeys([("numpy", "dtype"), *names], _stand_in)

    def dtype(name: Any, align: Any = False, copy: Any = False) -> Any:
        if not isinstance(name, str) or not re.fullmatch(r"[biufcSU][0-9]{1,4}", name):
            raise RefusedCall(f"it makes an array type {name!r}")
        return np.dtype(name, copy=True)

    def scalar(kind: Any, data: bytes) -> Any:
        return np.frombuffer(data, kind)[0]

    found: dict[tuple[str, str], Any] = {("numpy", "dtype"): dtype}
    for module in modules:
        found[module, "_reconstruct"] = lambda kind, shape, code: np.empty(0)
        found[module, "scalar"] = scalar
    return found


def _stand_in(*args: Any) -> Inert:
    return Inert.__new__(Inert)


def _is_honest(target: Any, state: Any) -> bool:
    """Whether NumPy itself would write this state; NumPy trusts it with memory."""
    if type(target).__module__.partition(".")[0] != "numpy":
        return False
    import numpy as np

    if isinstance(target, np.dtype):
        return state == target.newbyteorder(state[1]).__reduce__()[2]
    return isinstance(target, np.ndarray) and isinstance(state[4], bytes)


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes: as latin1 text."""
    if encoding != "latin1":
        raise RefusedCall(f"it encodes text as {encoding}")
    return text.encode(encoding)


def _default_dict(*args: Any) -> dict[Any, Any]:
    """A defaultdict loses its factory, which is a function of the file's choice."""
    return dict(*args[1:])


def _reconstruct(cls: Any, base: type, state: Any) -> Any:
    """How pickle protocols before 2 make an object: only stand-ins are made so."""
    if not isinstance(cls, _InertType):
        raise RefusedCall(f"it reconstructs {cls.__module__}.{cls.__name__}")
    return Inert.__new__(cls)  # type: ignore[arg-type]
