"""Reads checkpoint files without running anything that is in them.

A pickle names functions and has them called, so unpickling a stranger's file runs the stranger's
code. Here only what rebuilds tensors and plain containers is real; any other class becomes an inert
stand-in without behaviour, and a file that has anything else called is refused by name.
"""

import collections
import pickle
import types
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch

_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # names in pickle protocol 2
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
        _refuse_torchscript(path)
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


def _refuse_torchscript(path: Path) -> None:
    """``torch.load`` hands TorchScript archives, which hold code, to another reader."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise CheckpointError(f"refused to read {path}: it is a TorchScript program")


def _pickle_module(allowed: _Globals) -> Any:
    """What ``torch.load`` takes as ``pickle_module``: an unpickler that finds only ``allowed``."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            module = _PYTHON_2.get(module, module)
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
    import _codecs

    plain: list[Callable[..., Any]] = [set, frozenset, slice, complex, bytearray, range]
    found = {("builtins", kind.__name__): kind for kind in plain}
    found["collections", "OrderedDict"] = collections.OrderedDict
    found["collections", "defaultdict"] = _default_dict
    found["_codecs", "encode"] = _codecs.encode
    found["copyreg", "_reconstructor"] = _reconstruct
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
        found["torch._utils", name] = getattr(torch._utils, name)
    found["torch", "Size"] = torch.Size
    found["torch", "device"] = torch.device
    found["torch.nn.parameter", "Parameter"] = torch.nn.Parameter
    found["torch.storage", "UntypedStorage"] = torch.storage.UntypedStorage
    return found | _numpy_globals()


def _numpy_globals() -> dict[tuple[str, str], Any]:
    try:
        import numpy as np
    except ImportError:  # a torch without NumPy reads no arrays, and needs none for weights
        return {}
    array, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    found: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray}
    found["numpy", "dtype"] = np.dtype
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found[module, "_reconstruct"] = array
        found[module, "scalar"] = scalar
    for name in ("Float32", "Float64", "Int32", "Int64", "UInt32", "Bool"):
        if hasattr(np.dtypes, f"{name}DType"):
            found["numpy.dtypes", f"{name}DType"] = getattr(np.dtypes, f"{name}DType")
    return found


def _default_dict(*args: Any) -> dict[Any, Any]:
    """A defaultdict loses its factory, which is a function of the file's choice."""
    return dict(*args[1:])


def _reconstruct(cls: Any, base: type, state: Any) -> Any:
    """How pickle protocols before 2 make an object: only stand-ins are made so."""
    if not isinstance(cls, _InertType):
        raise RefusedCall(f"it reconstructs {cls.__module__}.{cls.__name__}")
    return Inert.__new__(cls)  # type: ignore[arg-type]
