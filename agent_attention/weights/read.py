"""Reads checkpoint files without running anything that is in them.

A pickle names functions and has them called, so unpickling a stranger's file runs the stranger's
code. torch's own safe reader (``weights_only=True``) rebuilds tensors and plain containers, and
refuses all else. Published files hold more, such as a yacs ``CfgNode``: stand-ins take the place of
unknown classes here. And files are held against what that reader takes on trust: checksums, and
how much data there is.
"""

import pickletools
import re
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import torch

# Modules that torch blocks, and what makes as many bytes as a file says.
_REFUSED = re.compile(r"(os|posix|nt|sys)\..*|builtins\.bytearray")
_EXPANDED = 2**26  # elements of a tensor that holds fewer: a copy of it, with them all, fits
_LOCK = threading.Lock()  # torch's list of safe globals is one for all threads


class CheckpointError(ValueError):
    """A checkpoint file that cannot be read, or may not be; the message names file and reason."""


class RefusedError(Exception):
    """What a checkpoint must not do; the message begins with 'it'."""


class StandIn(type):
    """The type of stand-ins for classes and functions that a file names, which are not imported.

    An object of such a class becomes an ``OrderedDict``, whether it has items, such as a yacs
    ``CfgNode``, or attributes. A call is refused.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise RefusedError(f"it calls {cls.__module__}.{cls.__name__}")


def stand_in(name: str) -> StandIn:
    """The stand-in for ``module.name``."""
    module, _, kind = name.rpartition(".")
    return StandIn(kind, (), {"__module__": module, "__new__": lambda *args: OrderedDict()})


class Unread:
    """Stands for an array of NumPy, which weights do not need."""

    def __new__(cls, *args: Any) -> "Unread":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def load_file(path: str | Path, allow: Mapping[str, Any] | None = None) -> Any:
    """Read a checkpoint, tensors on the CPU.

    Args:
        path: a file written by ``torch.save``, of any age, or a ``.safetensors`` file.
        allow: classes and functions that the file may use beside torch's, by ``module.name``.

    Returns:
        What was saved; objects of unknown classes are each an ``OrderedDict``.

    Raises:
        CheckpointError: if the file is missing, damaged, no checkpoint, or wants something called.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path)
        names = _names_in(path)
        if refused := next(filter(_REFUSED.fullmatch, names), None):
            raise RefusedError(f"it names {refused}")
        found = {name: stand_in(name) for name in names} | _ALLOWED | dict(allow or {})
        with _LOCK, _safe_globals(found):
            content = torch.load(path, map_location="cpu", weights_only=True)
        _refuse_expanded(content, path.stat().st_size)
        return content
    except RefusedError as error:
        raise CheckpointError(
            f"refused to read {path}: {error}, and a checkpoint must not. Of a file of your own, "
            "save the tensors alone: model.state_dict()"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise CheckpointError(
            f"cannot read {path}, it is damaged or no checkpoint: {_reason(error)}"
        ) from error


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file as load
    except ImportError as error:
        raise CheckpointError(f"reading {path} needs: pip install safetensors") from error
    return load(path)


def archive_damage(path: Path) -> str | None:
    """What is wrong with a zip archive, as ``torch.save`` writes it; None if it is whole.

    A flipped bit in a tensor is a wrong number to ``torch.load``. The sums of 1 GB take 0.2 s
    (measured here, on one core of an AMD EPYC, from memory).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return "TorchScript archives are programs: save model.state_dict()"
            if sum(each.file_size for each in archive.infolist()) > path.stat().st_size:
                return "its parts are larger than the file"
            records = {*torch._C.PyTorchFileReader(str(path)).get_all_records()}
            if len(records) < len(archive.namelist()) or "data.pkl" not in records:
                return "it has a part twice, or no data.pkl"
            broken = archive.testzip()
            return None if broken is None else f"the checksum of {broken} is wrong"
    except Exception as error:  # a damaged archive can raise anything
        return _reason(error)


def _pickles(path: Path) -> Iterator[Any]:
    """The pickles of a file that name something; files of torch before 1.6 have four in front."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            file.seek(0)
            yield from [file] * 4
            return
    if problem := archive_damage(path):
        raise ValueError(problem)
    with zipfile.ZipFile(path) as archive:
        yield from (archive.open(name) for name in archive.namelist() if name.endswith("/data.pkl"))


def _names_in(path: Path) -> set[str]:
    """What the pickles of a file name, as ``module.name``."""
    names = set()
    for code, arg, _ in chain.from_iterable(map(pickletools.genops, _pickles(path))):
        if code.name == "PROTO" and arg != 2:
            raise ValueError(f"it is of pickle protocol {arg}, and torch.save's own is 2")
        if code.name == "GLOBAL":
            names.add(str(arg).replace(" ", ".", 1).replace("__builtin__.", "builtins.", 1))
    return names


@contextmanager
def _safe_globals(found: Mapping[str, Any]) -> Iterator[None]:
    """These globals are safe to torch, and none that other packages have declared so."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(value, name) for name, value in found.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _refuse_expanded(content: Any, size: int) -> None:
    """A few bytes can stand for a tensor of any size, which a copy of it would have in full."""
    stored: dict[int, int] = {}
    for tensor in _tensors_in(content):
        if tensor.layout is not torch.strided:
            continue  # torch itself checks its indices
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        if tensor.numel() > max(storage.nbytes() // tensor.itemsize, _EXPANDED):
            raise RefusedError(f"it expands a number to {tensor.numel()} of them")
    if sum(stored.values()) > size:
        raise RefusedError("it makes a tensor that is larger than its data")


def _tensors_in(content: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested containers, which a pickle may have hold themselves."""
    pending, seen = [content], set()
    while pending:
        each = pending.pop()
        if isinstance(each, torch.Tensor):
            yield each
        elif isinstance(each, torch.UntypedStorage):
            yield torch.empty(0, dtype=torch.uint8).set_(each)
        elif isinstance(each, dict | list | tuple | set) and id(each) not in seen:
            seen.add(id(each))
            pending += [*each, *each.values()] if isinstance(each, dict) else each


def _look_up(owner: Any, name: str) -> StandIn:
    """A method of an unknown class, for frameworks whose objects keep some: also a stand-in."""
    if not isinstance(owner, StandIn | OrderedDict) or name.startswith("__"):
        raise RefusedError(f"it looks up {name} in {getattr(owner, '__name__', owner)}")
    return stand_in(f"method.{name}")


def _reason(error: Exception) -> str:
    """The words of an error; of torch's long refusals the reason alone."""
    words = " ".join(str(error).split()).rpartition("WeightsUnpickler error: ")[2]
    words = re.split(" Please use | Check the documentation", words)[0]
    return words if " " in words else f"{type(error).__name__} {words}".rstrip()


_ALLOWED: dict[str, Any] = {
    "builtins.bytes": lambda: b"",  # what pickle writes for these is a call
    "builtins.getattr": _look_up,
    "numpy.dtype": Unread,
}
for _core in ("core", "_core"):  # the second is NumPy 2's
    for _name in ("_reconstruct", "scalar"):
        _ALLOWED[f"numpy.{_core}.multiarray.{_name}"] = Unread
