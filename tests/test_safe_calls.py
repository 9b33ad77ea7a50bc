"""Nothing that a checkpoint file wants called is called."""

import collections
import contextlib
import copyreg
import importlib
import operator
import os
import pickle
import re
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import (
    NAMES,
    Call,
    error_of,
    formats,
    loaders,
    made,
    save,
    touching,
    zipped,
)
from mmengine.logging import HistoryBuffer
from torch import nn

import mmdet_agent  # noqa: F401  (its import makes mmengine read safely)
from agent_attention.weights.read import CheckpointError, load_file
from mmengine_agent.checkpoints import load_local


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


# files that make no marker, yet have something called that could
PROBING: dict[str, Any] = {
    "torch.hub.load": Call(torch.hub.load, "owner/name", "entry"),
    "numpy.loadtxt": Call(np.loadtxt, "/nowhere"),
    "operator.attrgetter": Call(operator.attrgetter, "__class__"),
    "copyreg._reconstructor": Call(copyreg._reconstructor, collections.OrderedDict, object, None),
    "builtins.type": Call(type, "Kind", (), {}),
    "builtins.compile": Call(compile, "1", "", "eval"),
    "builtins.getattr|it looks up": Call(getattr, collections.OrderedDict, "fromkeys"),
    "builtins.setattr": Call(setattr, collections.OrderedDict, "fromkeys", 1),
    "torch.load|torch.serialization.load": Call(torch.load, "/nowhere"),
    "torch.nn.modules.linear.Linear": Call(nn.Linear, 2, 2),
}


@pytest.mark.parametrize("name", NAMES)
@loaders
@formats
def test_calls_are_refused_by_name(
    new_format: bool, load: Callable[..., Any], name: str, marker: Path, tmp_path: Path
) -> None:
    content = {"state_dict": {"a": torch.ones(1)}, "meta": [{"x": touching(marker)[name]}]}
    message = error_of(save(content, tmp_path / "a.pth", new_format), load)
    assert message.startswith("refused to read ") and re.search(
        f"it (calls {name}|names posix)", message
    )
    assert not made(marker)


@pytest.mark.parametrize("name", [name for name in NAMES if "Popen" not in name])
def test_those_calls_would_have_run(name: str, marker: Path) -> None:
    try:  # whatever comes after the call does not matter
        pickle.loads(pickle.dumps(touching(marker)[name]))
    except (TypeError, AttributeError, pickle.UnpicklingError):
        assert made(marker)
    assert made(marker)


@pytest.mark.parametrize("name", PROBING)
@loaders
def test_other_calls_are_refused_by_name(
    load: Callable[..., Any], name: str, tmp_path: Path
) -> None:
    message = error_of(save([PROBING[name]], tmp_path / "a.pth"), load)
    assert re.search(name, message)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_bare_pickle_runs_nothing(protocol: int, marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(touching(marker)["posix.system"], protocol))
    error_of(path)
    assert not made(marker)


@pytest.mark.parametrize(
    "code",
    [
        b"(S'touch {}'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch {}'\no.",  # OBJ
        b"cos\nsystem\n(S'touch {}'\ntR.",  # REDUCE
        b"\x80\x02cos\nsystem\n(S'touch {}'\nt\x81R.",  # NEWOBJ, then a call of what it made
        b"\x80\x04\x8c\x02os\x8c\x06system\x93(S'touch {}'\ntR.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x08builtins\x8c\x08eval.foo\x93(S'touch {}'\ntR.",  # a dotted name
        b"c__builtin__\neval\n(S'touch {}'\ntR.",  # as Python 2 names it
        b"ccopy_reg\n_reconstructor\n(ccollections\nOrderedDict\nc__builtin__\ndict\n}tR.",
        b"cbuiltins\ngetattr\n(cimportlib\nimport_module\n(Vos\ntRVsystem\ntR(Vtouch {}\ntR.",
        b"cbuiltins\ngetattr\n(cos\nsystem\nV__call__\ntR(Vtouch {}\ntR.",
        b"cbuiltins\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\nV__init__\ntR.",
        b"ctypes\nFunctionType\n(Nctypes\nCodeType\ntR.",
        b"\x82\x01.",  # EXT1, of an empty registry
        b"cos\nsystem\nVtouch {}\n\x85R.",  # TUPLE1
        b"(Vmodule\ncos\nsystem\nVa\nVb\ntQ.",  # BINPERSID of an old container
    ],
)
@loaders
def test_opcodes_run_nothing(
    load: Callable[..., Any], code: bytes, marker: Path, tmp_path: Path
) -> None:
    path = zipped(code.replace(b"{}", str(marker).encode()), tmp_path / "a.pth")
    error_of(path, load)
    assert not made(marker)


@pytest.mark.filterwarnings("ignore:backward hook")
def test_functions_among_the_data_are_inert(tmp_path: Path) -> None:
    tensor = torch.ones(2, requires_grad=True)
    tensor._backward_hooks = collections.OrderedDict({0: shutil.rmtree})
    content = {"set": {shutil.rmtree}, "dict": {shutil.rmtree: eval}, "tensor": tensor}
    found = load_file(save(content, tmp_path / "a.pth"))
    for kind in (*found["set"], *found["dict"], *found["dict"].values()):
        with pytest.raises(Exception, match="it calls"):
            kind()


ALLOWED = [
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.storage", "UntypedStorage"),
    ("torch.nn.parameter", "Parameter"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("copyreg", "_reconstructor"),
    ("mmengine.logging.history_buffer", "HistoryBuffer"),
]


@pytest.mark.parametrize(("module", "name"), ALLOWED)
@pytest.mark.parametrize("state", [b"(N}V__doc__\nI7\nstb", b"}V__doc__\nI7\nsb"])
@loaders
def test_what_is_real_cannot_be_changed_by_a_file(
    load: Callable[..., Any], state: bytes, module: str, name: str, tmp_path: Path
) -> None:
    real = getattr(importlib.import_module(module), name)
    before = real.__doc__
    path = zipped(f"c{module}\n{name}\n".encode() + state + b".", tmp_path / "a.pth")
    attributes = dict(vars(real))
    try:
        with contextlib.suppress(CheckpointError):
            load(path)
        assert real.__doc__ == before and dict(vars(real)) == attributes
    finally:
        if vars(real).get("__doc__") == 7 or real.__doc__ == 7:
            real.__doc__ = before
            if isinstance(real, types.FunctionType):
                vars(real).pop("__doc__", None)


def test_the_statistics_of_a_run_cannot_be_changed_by_a_file(tmp_path: Path) -> None:
    HistoryBuffer()
    before = dict(HistoryBuffer._statistics_methods)
    history = HistoryBuffer([1.0], [1])
    history._statistics_methods = {"mean": os.getcwd, "mine": os.getcwd}
    look_up = b"cbuiltins\ngetattr\n(cmmengine.logging.history_buffer\nHistoryBuffer\n"
    register = look_up + b"Vregister_statistics\ntR(ctorch._utils\n_rebuild_tensor\ntR."
    files = [save(history, tmp_path / "0.pth"), zipped(register, tmp_path / "1.pth")]
    try:
        for path in files:
            try:
                load_local(str(path))
            except CheckpointError:
                continue
            finally:
                changed = dict(HistoryBuffer._statistics_methods)
            assert changed == before
    finally:
        HistoryBuffer._statistics_methods.clear()
        HistoryBuffer._statistics_methods.update(before)
