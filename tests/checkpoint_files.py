"""Checkpoint files for tests of the safe reader: honest ones, and those that would run code."""

import collections
import functools
import io
import operator
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import normal
from torch import nn

import mmdet_agent  # noqa: F401  (its import makes mmengine read safely)
from agent_attention.weights.read import CheckpointError, load_file
from mmengine_agent.checkpoints import load_local

FORMATS = {"zip": True, "old": False}
LOADERS = {"core": load_file, "mmengine": load_local}
formats = pytest.mark.parametrize("new_format", FORMATS.values(), ids=FORMATS)
loaders = pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)


def save(content: Any, path: Path, new_format: bool = True, protocol: int = 2) -> Path:
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": new_format}
    torch.save(content, path, **options)
    return path


def zipped(code: bytes, path: Path) -> Path:
    """A file in torch's format around a pickle written by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"data.pkl": code, "version": b"3\n", "byteorder": b"little"}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def error_of(path: Path, load: Callable[..., Any] = load_file) -> str:
    """The message of the error, which names the file."""
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert str(path) in str(error.value)
    return str(error.value)


def everything() -> dict[str, Any]:
    shared = normal(1, (4, 6))
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64]
    dtypes += [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
    return {
        **{str(dtype): (normal(2, (3, 5)) * 3).to(dtype) for dtype in dtypes},
        "views": [shared, shared[1:, ::2], shared.t()],
        "expanded": normal(3, (1,)).expand(2, 7),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(normal(4, (2, 2)), requires_grad=False),
        "trained": nn.Parameter(normal(5, (2, 2))),
        "ordered": collections.OrderedDict(b=torch.ones(1), a=2),
        "state": nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict(),
        "plain": [None, True, 1, 2**70, 0.5, "text", b"bytes", (1, (2,)), {"a": {}}, {1}, 1j],
        "kinds": [torch.Size([2, 3]), torch.device("cpu"), torch.float16],
    }


def same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, torch.Tensor):
        assert type(found) is type(wanted) and found.requires_grad == wanted.requires_grad
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, check_stride=True)
    elif isinstance(wanted, dict):
        assert type(found) is type(wanted) and list(found) == list(wanted)
        for key in wanted:
            same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert type(found) is type(wanted) and len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    else:
        assert type(found) is type(wanted) and found == wanted


class Call:
    """Has a function called when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


def touching(marker: Path) -> dict[str, Any]:
    """Objects that make the marker file when unpickled, by what they have called, in old names."""
    command, code = f"touch '{marker}'", f"open({str(marker)!r}, 'w').close()"
    buffer = io.BytesIO()
    torch.save(Call(os.system, command), buffer, _use_new_zipfile_serialization=False)
    return {
        "posix.system": Call(os.system, command),
        "builtins.eval": Call(eval, code),
        "builtins.exec": Call(exec, code),
        "io.open": Call(open, str(marker), "w"),
        "commands.Popen": Call(subprocess.Popen, ["touch", str(marker)]),
        "functools.partial": Call(functools.partial(os.system, command)),
        "builtins.map": Call(list, Call(map, os.system, [command])),
        "numpy.save": Call(np.save, str(marker), 1),
        "operator.methodcaller": Call(operator.methodcaller("touch"), marker),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, buffer.getvalue()),
        "torch._tensor._rebuild_from_type_v2": Call(
            torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (command,), {}
        ),
        "posix.mkdir": Call(os.mkdir, str(marker)),
    }


NAMES = [*touching(Path("marker"))]


def made(marker: Path) -> bool:
    return any(path.exists() for path in (marker, marker.with_suffix(".npy")))


def run_apart(script: str, *arguments: Any, gigabytes: int = 8) -> str:
    """What a script prints, in a process of its own with little memory."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))\n"
    code = limit.format(gigabytes * 2**30) + script
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
