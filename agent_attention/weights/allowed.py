"""What a checkpoint may name: tensors, arrays, plain containers, and stand-ins for all else."""

import collections
import datetime
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch

Globals = Mapping[tuple[str, str], Any]
_FACTORIES = {kind.__name__: kind for kind in (dict, list, set, tuple, int, float, str, bool)}
_EXPANDED = 2**26  # elements of a tensor that holds fewer: a copy of it, with them all, fits


class RefusedCall(Exception):
    """The file has something called that is not allowed; the message begins with 'it'."""


class InertType(type):
    """The type of all stand-ins; whoever calls one wants a function called."""

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        # pickle makes plain objects with __new__, and does not come here
        raise RefusedCall(f"it calls {cls.__module__}.{cls.__name__}")


class Inert(metaclass=InertType):
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


def is_inert(value: Any) -> bool:
    """Whether a value that was read is a stand-in: for an object, a class or a function."""
    return isinstance(value, Inert | InertType)


def allowed_globals() -> dict[tuple[str, str], Any]:
    """Everything that tensors, arrays and what Python counts as data are pickled with."""
    found: dict[tuple[str, str], Any] = {
        ("builtins", "slice"): slice,
        ("builtins", "complex"): complex,
        ("builtins", "range"): range,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): _default_dict,
        ("_codecs", "encode"): _encode,
        ("copyreg", "_reconstructor"): _reconstruct,
        ("builtins", "getattr"): inert_attribute,
    }
    kind: Any
    # as calls, these make something of any size out of a number or a range
    for kind in (set, frozenset, bytes, bytearray, collections.Counter, collections.deque):
        found[kind.__module__, kind.__name__] = _of_what_is_there(kind)
    for name in ("datetime", "date", "time", "timedelta", "timezone"):
        found["datetime", name] = getattr(datetime, name)
    return found | _paths() | _torch_globals() | _numpy_globals()


def inert_attribute(owner: Any, name: str) -> InertType:
    """A stand-in for a method, for frameworks whose objects keep some: pickle names one by getattr.

    Raises:
        RefusedCall: unless the owner is a stand-in itself.
    """
    kind = owner if isinstance(owner, InertType) else type(owner)
    if not isinstance(kind, InertType) or name.startswith("__"):
        raise RefusedCall(f"it looks up {name} in {getattr(owner, '__name__', owner)}")
    return InertType(f"{kind.__name__}.{name}", (Inert,), {"__module__": kind.__module__})


def _paths() -> dict[tuple[str, str], Any]:
    """Paths, of this system or of another one, whose files cannot be looked for here."""
    found: dict[str, Any] = {
        name: getattr(pathlib, name) for name in ("PurePosixPath", "PureWindowsPath")
    }
    for name in ("PosixPath", "WindowsPath"):
        here = type(pathlib.Path()).__name__ == name
        found[name] = pathlib.Path if here else found[f"Pure{name}"]
    modules = ("pathlib", "pathlib._local")  # the second is Python 3.13's
    return {(module, name): kind for module in modules for name, kind in found.items()}


def _torch_globals() -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {
        ("torch", "Size"): _of_what_is_there(torch.Size),
        ("torch", "device"): torch.device,
        ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
        ("torch.nn.parameter", "Parameter"): torch.nn.Parameter,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        # what its indices promise is checked by torch.load at the end
        ("torch._utils", "_rebuild_sparse_tensor"): torch._utils._rebuild_sparse_tensor,
    }
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor"):
        found["torch._utils", name] = _within_storage(getattr(torch._utils, name))
    for name in ("per_tensor_affine", "per_channel_affine"):  # schemes of quantized tensors
        found["torch", name] = getattr(torch, name)
    storage = {"__module__": "torch.storage", "dtype": torch.uint8}  # of bytes, as torch takes it
    found["torch.storage", "UntypedStorage"] = InertType("UntypedStorage", (Inert,), storage)
    return found


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


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes: as latin1 text."""
    if encoding != "latin1":
        raise RefusedCall(f"it encodes text as {encoding}")
    return text.encode(encoding)


def _default_dict(factory: Any = None, *content: Any) -> dict[Any, Any]:
    """A defaultdict of plain containers or numbers; one with another factory becomes a dict."""
    kind = _FACTORIES.get(getattr(factory, "__name__", ""))
    return dict(*content) if kind is None else collections.defaultdict(kind, *content)


def _reconstruct(cls: Any, base: type, state: Any) -> Any:
    """How pickle protocols before 2 make an object: only stand-ins are made so."""
    if not isinstance(cls, InertType):
        raise RefusedCall(f"it reconstructs {cls.__module__}.{cls.__name__}")
    return Inert.__new__(cls)  # type: ignore[arg-type]


def _of_what_is_there(kind: Callable[..., Any]) -> Callable[..., Any]:
    """A container made of what the file holds already."""

    def make(*args: Any) -> Any:
        if args and not isinstance(args[0], list | tuple | set | frozenset | bytes | str | dict):
            raise RefusedCall(f"it makes a {kind.__name__} of {type(args[0]).__name__}")
        return kind(*args)

    make.__name__ = kind.__name__
    return make


def _within_storage(rebuild: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A tensor inside its storage: some torch read on behind it, and some make room there."""

    def make(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> torch.Tensor:
        kinds = [each for each in rest if isinstance(each, torch.dtype)] or [storage.dtype]
        room = storage._size() * storage.dtype.itemsize // kinds[0].itemsize
        spans = [(count - 1) * step for count, step in zip(size, stride, strict=True)]
        last = offset + sum(spans)
        if min([offset, *size, *stride]) < 0 or (0 not in size and last >= room):
            raise RefusedCall("it makes a tensor that is larger than its data")
        if math.prod(size) > max(room, _EXPANDED):
            raise RefusedCall(f"it expands a number to {math.prod(size)} of them")
        return rebuild(storage, offset, size, stride, *rest)

    return make
