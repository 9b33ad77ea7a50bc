"""What a checkpoint may name: tensors, arrays, plain containers, and stand-ins for all else."""

import collections
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch

Globals = Mapping[tuple[str, str], Any]
_EXPANDED = 2**26  # elements of a tensor that holds fewer: a copy of it, with them all, fits


class RefusedCall(Exception):
    """The file has something called that is not allowed; the message begins with 'it'."""


class InertType(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        # pickle makes plain objects with __new__; whoever comes here wants a function called
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


def allowed_globals() -> dict[tuple[str, str], Any]:
    """Everything that tensors, arrays and plain containers are pickled with."""
    plain: list[Callable[..., Any]] = [slice, complex, range]
    found = {("builtins", kind.__name__): kind for kind in plain}
    # as calls, these make something of any size out of a number or a range
    for kind in (set, frozenset, bytes, bytearray):
        found["builtins", kind.__name__] = _of_what_is_there(kind)
    found["collections", "OrderedDict"] = collections.OrderedDict
    found["collections", "defaultdict"] = _default_dict
    found["_codecs", "encode"] = _encode
    found["copyreg", "_reconstructor"] = _reconstruct
    found["torch._utils", "_rebuild_parameter"] = torch._utils._rebuild_parameter
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        found["torch._utils", name] = _within_storage(getattr(torch._utils, name))
    found["torch", "Size"] = _of_what_is_there(torch.Size)
    found["torch", "device"] = torch.device
    found["torch.nn.parameter", "Parameter"] = torch.nn.Parameter
    storage = {"__module__": "torch.storage", "dtype": torch.uint8}  # of bytes, as torch takes it
    found["torch.storage", "UntypedStorage"] = InertType("UntypedStorage", (Inert,), storage)
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
    if not isinstance(cls, InertType):
        raise RefusedCall(f"it reconstructs {cls.__module__}.{cls.__name__}")
    return Inert.__new__(cls)  # type: ignore[arg-type]


def _of_what_is_there(kind: Callable[..., Any]) -> Callable[..., Any]:
    """A container made of what the file holds already."""

    def make(*args: Any) -> Any:
        if args and not isinstance(args[0], list | tuple | set | frozenset | bytes | str):
            raise RefusedCall(f"it makes a {kind.__name__} of {type(args[0]).__name__}")
        return kind(*args)

    return make


def _within_storage(rebuild: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A tensor inside its storage: some torch read on behind it, and some make room there."""

    def make(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> torch.Tensor:
        spans = [(count - 1) * step for count, step in zip(size, stride, strict=True)]
        last = offset + sum(spans)
        if min([offset, *size, *stride]) < 0 or (0 not in size and last >= storage._size()):
            raise RefusedCall("it makes a tensor that is larger than its data")
        if math.prod(size) > max(storage._size(), _EXPANDED):
            raise RefusedCall(f"it expands a number to {math.prod(size)} of them")
        return rebuild(storage, offset, size, stride, *rest)

    return make
