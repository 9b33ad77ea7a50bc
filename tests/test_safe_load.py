"""Checkpoint files are read in full, and nothing in them is run."""

import collections
import contextlib
import copyreg
import functools
import importlib
import io
import operator
import os
import pickle
import re
import subprocess
import sys
import tarfile
import types
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mmdet.registry
import mmengine.runner.checkpoint
import numpy as np
import pytest
import torch
from helpers import SMALL, normal, small_pvt
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader, save_checkpoint
from safetensors.torch import save_file
from torch import nn

import mmdet_agent  # noqa: F401  (its import makes mmengine read safely)
from agent_attention.weights.read import CheckpointError, Inert, load_file
from mmengine_agent.checkpoints import install_safe_loader, load_local
from mmengine_agent.errors import UserError

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


# --- what is read


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
        "kinds": [torch.Size([2, 3]), torch.device("cpu"), torch.float16, slice(1, 2), range(3)],
        "arrays": [np.arange(6.0).reshape(2, 3), np.float64(2.5), np.int64(3), np.array(["ab"])],
        "bools": [np.array([True, False]), np.float32(0.5), np.zeros((0, 2), np.int32)],
    }


def same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, torch.Tensor):
        assert type(found) is type(wanted) and found.requires_grad == wanted.requires_grad
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, check_stride=True)
    elif isinstance(wanted, np.ndarray | np.generic):
        assert np.asarray(found).dtype == wanted.dtype and np.array_equal(found, wanted)
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


@formats
@pytest.mark.parametrize("protocol", [2, 3, 4])
@loaders
def test_tensors_and_plain_containers_are_read_as_torch_does(
    load: Callable[..., Any], new_format: bool, protocol: int, tmp_path: Path
) -> None:
    path = save(everything(), tmp_path / "all.pth", new_format, protocol)
    found, wanted = load(path), torch.load(path, weights_only=False)
    same(found, wanted)
    first, second, third = found["views"]
    assert first.data_ptr() == third.data_ptr() == second.data_ptr() - 6 * 4
    first[1, 2] = 99
    assert second[0, 1] == third[2, 1] == 99


def test_a_path_may_be_text(tmp_path: Path) -> None:
    assert load_file(str(save({"a": 1}, tmp_path / "a.pth"))) == {"a": 1}


def test_a_default_dict_loses_its_factory(tmp_path: Path) -> None:
    content = collections.defaultdict(os.getcwd, a=1)
    found = load_file(save(content, tmp_path / "a.pth"))
    assert found == {"a": 1}
    with pytest.raises(KeyError):
        found["missing"]


def test_the_state_of_a_run_is_read_back(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    hub = MessageHub("test_safe_load")
    for step in range(5):
        hub.update_scalar("train/loss", 1.0 / (step + 1))
    hub.update_info("iter", 5)
    content = {
        "meta": {
            "epoch": 1,
            "seed": 3,
            "dataset_meta": {"classes": ("a",), "palette": [(1, 2, 3)]},
        },
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [scheduler.state_dict()],
        "message_hub": hub.state_dict(),
    }
    save_checkpoint(content, str(tmp_path / "epoch_1.pth"))
    found = CheckpointLoader.load_checkpoint(str(tmp_path / "epoch_1.pth"), "cpu")

    for key in ("meta", "state_dict", "optimizer", "param_schedulers"):
        same(found[key], content[key])
    history = found["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(history, HistoryBuffer)
    assert history.mean(5) == pytest.approx(hub.get_scalar("train/loss").mean(5))
    assert history.statistics("current") == pytest.approx(0.2)
    history.update(0.1)
    other = MessageHub("test_safe_load_again")
    other.load_state_dict(found["message_hub"])
    assert other.get_info("iter") == 5 and other.get_scalar("train/loss").current() == 0.1


# --- unknown classes


class Node(dict):  # type: ignore[type-arg]
    pass


class Row(list):  # type: ignore[type-arg]
    pass


class Thing:
    def __init__(self, value: Any) -> None:
        self.value = value


class Slots:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Puts classes into a module ``vanished``, and gives what makes it vanish."""
    module = types.ModuleType("vanished")
    for kind in (Node, Row, Thing, Slots):
        monkeypatch.setattr(kind, "__module__", "vanished")
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "vanished", module)
    yield lambda: monkeypatch.delitem(sys.modules, "vanished")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@formats
def test_objects_of_unknown_classes_become_inert(
    new_format: bool, protocol: int, gone: Callable[[], None], tmp_path: Path
) -> None:
    node = Node(a=1, inner=Node(rows=Row([1, Thing(2)])))
    node.attribute = Thing([Node(b=2)])  # type: ignore[attr-defined]
    things = [node, Row([1, 2, 3]), Row([1]), Thing({"x": Row()}), Thing(None)]
    things += [Slots(1)] * (protocol > 1)
    content: dict[str, Any] = {"config": things, "same": node, "epoch": 3}
    if protocol > 1:  # the first two cannot refer to tensors
        content["model"] = {"weight": normal(1, (2, 3))}
    path = save(content, tmp_path / "a.pth", new_format, protocol)
    gone()
    found = load_file(path)
    assert all(isinstance(thing, Inert) for thing in found["config"])
    assert [type(thing).__name__ for thing in found["config"][:4]] == [
        "Node",
        "Row",
        "Row",
        "Thing",
    ]
    assert found["same"] is found["config"][0] and found["epoch"] == 3
    for thing in found["config"]:
        assert not vars(thing) and not callable(thing)
    if protocol > 1:
        same(found["model"], content["model"])


def test_an_inert_class_cannot_be_called(gone: Callable[[], None], tmp_path: Path) -> None:
    path = save({"kind": Thing}, tmp_path / "a.pth")
    gone()
    kind = load_file(path)["kind"]
    with pytest.raises(Exception, match=r"it calls vanished\.Thing"):
        kind(1)


# --- calls


class Call:
    """Has a function called when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


def touching(marker: Path) -> dict[str, Any]:
    """Objects that make the marker file when unpickled, and the name of what they have called."""
    command, code = f"touch '{marker}'", f"open({str(marker)!r}, 'w').close()"
    buffer = io.BytesIO()
    torch.save(Call(os.system, command), buffer, _use_new_zipfile_serialization=False)
    return {
        "posix.system": Call(os.system, command),
        "builtins.eval": Call(eval, code),
        "builtins.exec": Call(exec, code),
        "io.open": Call(open, str(marker), "w"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(marker)]),
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


# files that make no marker, yet have something called that could
PROBING: dict[str, Any] = {
    "torch.hub.load": Call(torch.hub.load, "owner/name", "entry"),
    "numpy.loadtxt": Call(np.loadtxt, "/nowhere"),
    "operator.attrgetter": Call(operator.attrgetter, "__class__"),
    "reconstructs": Call(copyreg._reconstructor, collections.OrderedDict, object, None),
    "builtins.type": Call(type, "Kind", (), {}),
    "builtins.compile": Call(compile, "1", "", "eval"),
    "builtins.getattr|it looks up": Call(getattr, collections.OrderedDict, "fromkeys"),
    "builtins.setattr": Call(setattr, collections.OrderedDict, "fromkeys", 1),
    "torch.load|torch.serialization.load": Call(torch.load, "/nowhere"),
    "torch.storage.TypedStorage": Call(torch.storage.TypedStorage, 3),
    "torch.nn.modules.linear.Linear": Call(nn.Linear, 2, 2),
}
NAMES = [*touching(Path("marker"))]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "marker"


def made(marker: Path) -> bool:
    return any(path.exists() for path in (marker, marker.with_suffix(".npy")))


@pytest.mark.parametrize("name", NAMES)
@loaders
@formats
def test_calls_are_refused_by_name(
    new_format: bool, load: Callable[..., Any], name: str, marker: Path, tmp_path: Path
) -> None:
    content = {"state_dict": {"a": torch.ones(1)}, "meta": [{"x": touching(marker)[name]}]}
    message = error_of(save(content, tmp_path / "a.pth", new_format), load)
    assert message.startswith("refused to read ") and f"it calls {name}, " in message
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
    assert message.startswith("refused to read ") and re.search(name, message)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_bare_pickle_runs_nothing(protocol: int, marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(touching(marker)["posix.system"], protocol))
    assert "it calls posix.system" in error_of(path)
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
    tensor._backward_hooks = collections.OrderedDict({0: os.getcwd})
    content = {"set": {os.getcwd}, "dict": {os.getcwd: eval}, "tensor": tensor}
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


def test_arrays_of_made_up_types_are_refused(tmp_path: Path) -> None:
    # bytes of the file as pointers to Python objects: whoever reads or frees them crashes, or worse
    plain = b"cnumpy\ndtype\n(VV8\nI0\nI1\ntR"
    pointer = b"cnumpy\ndtype\n(VO8\nI0\nI1\ntR"
    fields = b"(I3\nV|\nN(Va\nt}Va\n(" + pointer + b"I0\ntsI8\nI1\nI0\ntb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
    code = b"\x80\x03" + array + b"(I1\n(I1\nt" + plain + fields + b"I00\nC\x08AAAAAAAAtb."
    path = zipped(code, tmp_path / "a.pth")
    script = """
import sys
from agent_attention.weights.read import CheckpointError, load_file
try:
    print(load_file(sys.argv[1]))
except CheckpointError:
    print("refused")
"""
    assert run_apart(script, path) == "refused\n"


def test_an_archive_of_the_oldest_format_changes_no_other_file(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("mine")
    other.chmod(0o600)
    path = tmp_path / "a.pth"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("storages")
        link.type, link.linkname, link.mode, link.mtime = tarfile.LNKTYPE, str(other), 0o777, 1
        archive.addfile(link)
        for name in ("tensors", "pickle"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    error_of(path)
    assert other.stat().st_mode & 0o777 == 0o600 and other.stat().st_mtime > 1


# --- files that are no checkpoints


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "program.pt"
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(path))
    assert f"refused to read {path}: it is a TorchScript program" == error_of(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"<!DOCTYPE html><html>404</html>",
        b"PK\x03\x04",
        b"PK\x05\x06" + 18 * b"\0",
    ],
    ids=["empty", "zeros", "html", "zip", "empty zip"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@loaders
def test_what_is_no_checkpoint_is_refused(
    load: Callable[..., Any], suffix: str, content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert "damaged or no checkpoint: " in error_of(path, load)


@pytest.mark.parametrize("name", ["nowhere.pth", ".", "nowhere.safetensors"])
@loaders
def test_missing_files_and_folders_are_named(
    load: Callable[..., Any], name: str, tmp_path: Path
) -> None:
    assert "there is no file" in error_of(tmp_path / name, load)


def test_safetensors_that_are_not_installed_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert "pip install safetensors" in error_of(tmp_path / "a.safetensors")


@formats
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(kept: float, new_format: bool, tmp_path: Path) -> None:
    path = save(everything(), tmp_path / "a.pth", new_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert "damaged or no checkpoint: " in error_of(path)


DAMAGE = """
import random, sys
from pathlib import Path
from agent_attention.weights.read import CheckpointError, load_file

rng, refused = random.Random(5), 0
for whole in map(Path, sys.argv[1:]):
    path = whole.with_name("damaged.pth")
    for _ in range(80):
        data = bytearray(whole.read_bytes())
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(min(len(data), 700))  # the pickle is in front
            action = rng.randrange(4)
            if action == 0:
                data[place] = rng.randrange(256)
            elif action == 1:
                data[place] ^= 1 << rng.randrange(8)
            elif action == 2:
                del data[place : place + rng.randint(1, 20)]
            else:
                data[place:place] = rng.randbytes(rng.randint(1, 5))
        path.write_bytes(data)
        try:
            load_file(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
print(refused)
"""


def run_apart(script: str, *arguments: Any, gigabytes: int = 8) -> str:
    """What a script prints, in a process of its own with little memory."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))\n"
    code = limit.format(gigabytes * 2**30) + script
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    content = {"model": {"a": torch.ones(3), "b": nn.Parameter(torch.ones(2))}, "n": [1, None]}
    files = [save(content, tmp_path / f"{name}.pth", new) for name, new in FORMATS.items()]
    assert int(run_apart(DAMAGE, *files)) > 80


def test_a_few_bytes_cannot_take_all_memory(tmp_path: Path) -> None:
    path = zipped(b"Vtext\nr\x00\x00\x00\x08.", tmp_path / "a.pth")  # remembered as number 2^27
    script = """
import sys
from agent_attention.weights.read import CheckpointError, load_file
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_file(sys.argv[1])
except CheckpointError:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    assert int(run_apart(script, path)) < 200_000  # KiB


@pytest.mark.parametrize("part", ["data.pkl", "data/0", "version"])
def test_one_wrong_bit_is_refused(part: str, tmp_path: Path) -> None:
    path = save({"a": torch.ones(500)}, tmp_path / "a.pth")
    with zipfile.ZipFile(path) as archive:
        inside = archive.read(f"a/{part}")
    content = bytearray(path.read_bytes())
    content[content.index(inside) + len(inside) // 2] ^= 1
    path.write_bytes(content)
    assert f"the checksum of a/{part} is wrong" in error_of(path)


@pytest.mark.parametrize(
    ("odd", "options"),
    [("there twice", {}), ("are compressed", {"compression": zipfile.ZIP_DEFLATED})],
)
def test_archives_that_torch_does_not_write_are_refused(
    odd: str, options: dict[str, Any], tmp_path: Path
) -> None:
    path = zipped(b"\x80\x02}.", tmp_path / "a.pth")
    if options:
        path.unlink()
    with zipfile.ZipFile(path, "a", **options) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, content in {"data.pkl": b"\x80\x02].", "version": b"3\n"}.items():
            archive.writestr(f"archive/{name}", content)
    assert odd in error_of(path)


STORAGE = torch.ones(4)._typed_storage()
HUGE: dict[str, Any] = {
    "it makes a set": Call(set, range(10**9)),
    "it makes a Size": Call(torch.Size, range(10**9)),
    "it makes a bytes": Call(bytes, 10**11),
    "it makes a bytearray": Call(bytearray, 10**11),
    "it calls torch.storage.UntypedStorage": Call(torch.UntypedStorage, 10**11),
    "it expands": Call(torch._utils._rebuild_tensor_v2, STORAGE, 0, (10**12,), (0,), False, {}),
    "larger than its data": Call(torch._utils._rebuild_tensor_v2, STORAGE, 1, (4,), (1,), 0, {}),
}


@formats
@pytest.mark.parametrize("message", HUGE)
def test_a_few_bytes_cannot_make_something_huge(
    message: str, new_format: bool, tmp_path: Path
) -> None:
    assert message in error_of(save(HUGE[message], tmp_path / "a.pth", new_format))


def test_a_key_that_takes_hours_to_hash_is_refused(tmp_path: Path) -> None:
    pairs = b")" + b"2\x86" * 45  # of pairs of pairs
    message = error_of(zipped(b"\x80\x02}" + pairs + b"K\x01s.", tmp_path / "a.pth"))
    assert "it nests tuples" in message


def test_more_bytes_than_are_there_are_not_read(tmp_path: Path) -> None:
    path = save({"a": torch.ones(4)}, tmp_path / "a.pth")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(b"K\x04tq", b"K\x40tq", 1))
    assert "it takes 256 bytes of a part of 16" in error_of(path)


CODE = [
    "import os",
    "a = open('x')",
    "a = dict(b=[eval('1')])",
    "a = dict.fromkeys('x')",
    "a = dict([('type', 'os.system')])",
    "a = dict(**b)",
    "model = dict(type='os.system', command='touch x')",
    "model = {'type': 'subprocess.run'}",
    "model = {**b}",
    "b = 'os.system'\nmodel = dict(type=b)",
    "a = '{{ 1 }}'",
    "a = 9 ** 9",
    "a = b.c",
    "a = f'{b}'",
    "a = lambda: 1",
    "def a(): pass",
    "a = [b for c in d]",
    "a = (",
    "a = '\0'" + "\0",
    "(" * 9999,
    7,
]


@pytest.mark.parametrize("text", CODE)
def test_a_config_with_code_is_dropped(text: Any, tmp_path: Path) -> None:
    content = {"meta": {"config": text, "cfg": text, "iter": 3}}
    content["message_hub"] = {"runtime_info": {"cfg": text}}
    found = load_local(str(save(content, tmp_path / "a.pth")))
    assert found == {"meta": {"iter": 3}, "message_hub": {"runtime_info": {}}}


@pytest.mark.parametrize("name", ["agent_pvt_maskrcnn", "agent_pvt_semantic_fpn"])
def test_a_config_as_mmengine_writes_it_is_kept(name: str, tmp_path: Path) -> None:
    text = Config.fromfile(Path(__file__).parents[1] / f"configs/{name}.py").pretty_text
    content = {"meta": {"cfg": text}, "message_hub": {"runtime_info": {"cfg": text}}}
    assert load_local(str(save(content, tmp_path / "a.pth"))) == content


# --- every way of mmengine to a file


def by_init_cfg(path: Path) -> None:
    config = {"type": "Pretrained", "checkpoint": str(path)}
    model = mmdet.registry.MODELS.build({"type": "AgentPVT", "arch": SMALL, "init_cfg": config})
    with pytest.raises(UserError) as error:
        model.init_weights()
    raise CheckpointError(str(error.value))


ROUTES: dict[str, Callable[[Path], Any]] = {
    "init_cfg": by_init_cfg,
    "CheckpointLoader": lambda path: CheckpointLoader.load_checkpoint(str(path), "cpu"),
    "load_checkpoint": lambda path: mmengine.runner.load_checkpoint(nn.Linear(2, 2), str(path)),
    "_load_checkpoint": lambda path: mmengine.runner.checkpoint._load_checkpoint(str(path)),
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize(
    "name", ["posix.system", "builtins.eval", "torch.storage._load_from_bytes"]
)
@formats
def test_every_way_to_a_file_is_safe(
    new_format: bool, name: str, route: Callable[[Path], Any], marker: Path, tmp_path: Path
) -> None:
    content = {"state_dict": small_pvt().state_dict(), "meta": touching(marker)[name]}
    path = save(content, tmp_path / "a.pth", new_format)
    assert f"it calls {name}, " in error_of(path, route)
    assert not made(marker)


STORES = [prefix for prefix in CheckpointLoader._schemes if re.search("s3|petrel|pavi", prefix)]


@pytest.mark.parametrize(
    "scheme", [each for each in CheckpointLoader._schemes if each not in STORES]
)
def test_every_kind_of_name_is_read_by_the_safe_loader(scheme: str) -> None:
    assert CheckpointLoader._schemes[scheme].__module__ == "mmengine_agent.checkpoints"


def test_a_home_folder_may_be_written_as_a_tilde(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save({"a": 1}, tmp_path / "a.pth")
    assert CheckpointLoader.load_checkpoint("~/a.pth") == {"a": 1}


# --- names of models on mmengine's lists

LISTS = {  # the scheme of a name, and mmengine's function that gives the list
    "torchvision": "get_torchvision_models",
    "modelzoo": "get_torchvision_models",
    "open-mmlab": "get_external_models",
    "openmmlab": "get_external_models",
    "mmcls": "get_mmcls_models",
}
ADDRESS = "https://nowhere.invalid/known.pth"
every_list = pytest.mark.parametrize("scheme", LISTS)
Put = Callable[[Any], None]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Put:
    """Puts a checkpoint behind the one address that all lists know; the network is left alone."""
    content: list[Any] = []

    def download(address: str, path: str, progress: bool) -> None:
        assert address == ADDRESS
        save(content[-1], Path(path))

    models = {"known": ADDRESS, "mine": "mine.pth", "detectron/resnet50_caffe": ADDRESS}
    for name in LISTS.values():
        monkeypatch.setattr(mmengine.runner.checkpoint, name, lambda: models)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
    return content.append


@pytest.mark.parametrize("scheme", [scheme for scheme in LISTS if scheme != "mmcls"])
def test_a_name_on_a_list_stands_for_its_address(scheme: str, put: Put) -> None:
    content = {"state_dict": {"a": torch.ones(2)}, "meta": {"epoch": 1}}
    put(content)
    same(CheckpointLoader.load_checkpoint(f"{scheme}://known"), content)


def test_a_classifier_on_a_list_gives_its_backbone_as_mmengine_does(put: Put) -> None:
    state = {"backbone.a": torch.ones(2), "backbone.b.c": torch.zeros(1), "head.fc": torch.ones(1)}
    for content in (state, {"state_dict": state, "meta": {}}):
        put(content)
        found = CheckpointLoader.load_checkpoint("mmcls://known")
        wanted = mmengine.runner.checkpoint._process_mmcls_checkpoint(content)
        same(found, {"state_dict": dict(wanted["state_dict"])})
        assert [*found["state_dict"]] == ["a", "b.c"]


def test_a_name_of_old_still_stands_for_the_new_one(put: Put) -> None:
    put({"a": 1})
    assert CheckpointLoader.load_checkpoint("open-mmlab://resnet50_caffe") == {"a": 1}


def test_a_list_of_ones_own_may_name_files(put: Put, tmp_path: Path) -> None:
    save({"a": 1}, tmp_path / "mine.pth")
    assert CheckpointLoader.load_checkpoint("openmmlab://mine") == {"a": 1}


@every_list
def test_an_unknown_name_is_told_the_known_ones(scheme: str, put: Put) -> None:
    with pytest.raises(CheckpointError) as error:
        CheckpointLoader.load_checkpoint(f"{scheme}://unknown")
    known = f"{scheme}:// has known, mine, detectron/resnet50_caffe"
    assert str(error.value) == f"there is no {scheme}://unknown; {known}"


@every_list
def test_what_lists_stand_for_runs_nothing(scheme: str, put: Put, marker: Path) -> None:
    put({"state_dict": {"backbone.a": torch.ones(1)}, "meta": touching(marker)["posix.system"]})
    with pytest.raises(CheckpointError, match=r"it calls posix\.system, "):
        CheckpointLoader.load_checkpoint(f"{scheme}://known")
    assert not made(marker)


def test_a_list_of_a_package_that_is_not_installed_names_it(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        import no_such_package  # noqa: F401

    monkeypatch.setattr(mmengine.runner.checkpoint, "get_torchvision_models", absent)
    with pytest.raises(CheckpointError, match=r"torchvision://known needs .*no_such_package"):
        CheckpointLoader.load_checkpoint("torchvision://known")


@pytest.mark.parametrize("prefix", ["s3://", "petrel://", "cluster:s3://", "pavi://"])
def test_object_stores_keep_their_loaders_and_are_warned_of(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(
        "mmengine_agent.checkpoints.print_log", lambda text, **_: warned.append(text)
    )
    loader = CheckpointLoader._get_checkpoint_loader(f"{prefix}bucket/a.pth")
    assert loader.__wrapped__.__module__ == "mmengine.runner.checkpoint"
    with pytest.raises(Exception) as error:  # there is no such store here
        loader(f"{prefix}bucket/a.pth")
    assert not isinstance(error.value, CheckpointError)
    assert [f"{prefix}bucket/a.pth is in an object store" in text for text in warned] == [True]


def test_loaders_of_stores_are_wrapped_once() -> None:
    before = dict(CheckpointLoader._schemes)
    install_safe_loader()
    assert {name: before[name] for name in STORES} == {
        name: CheckpointLoader._schemes[name] for name in STORES
    }


# --- the variable that forbids torch every other unpickler


@pytest.mark.parametrize("value", ["1", "y", "YES", "True"])
@loaders
def test_torchs_own_unpickler_cannot_be_forced(
    load: Callable[..., Any], value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = save({"a": 1}, tmp_path / "a.pth")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", value)
    assert "with TORCH_FORCE_WEIGHTS_ONLY_LOAD set: unset it" in error_of(path, load)
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    assert load(path) == {"a": 1}


def test_safetensors_are_read_whatever_is_forced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    same(load_file(tmp_path / "a.safetensors"), {"a": torch.ones(2)})
