"""Damaged and oversized files, and those that are no checkpoints, are refused."""

import io
import re
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import (
    FORMATS,
    Call,
    error_of,
    everything,
    formats,
    loaders,
    run_apart,
    save,
    zipped,
)
from torch import nn

import mmdet_agent  # noqa: F401  (its import makes mmengine read safely)


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
    assert "TorchScript archives" in error_of(path)


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
    ("part", "message"), [("data.pkl", "a part twice"), ("x", "are larger than the file")]
)
def test_archives_that_torch_does_not_write_are_refused(
    part: str, message: str, tmp_path: Path
) -> None:
    path = zipped(b"\x80\x02}.", tmp_path / "a.pth")
    content = bytes(1 if part == "data.pkl" else 10**6)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(f"archive/{part}", content)
    assert message in error_of(path)


STORAGE = torch.ones(4)._typed_storage()
HUGE: dict[str, Any] = {
    "range": Call(set, range(10**9)),
    "takes 0 positional arguments": Call(bytes, 10**11),
    "it names builtins.bytearray": Call(bytearray, 10**11),
    "memory|larger than its data": Call(torch.UntypedStorage, 10**11),
    "larger than its data": Call(torch.FloatTensor, 10**8),
    "it expands": Call(torch._utils._rebuild_tensor_v2, STORAGE, 0, (10**12,), (0,), False, {}),
    "resize|wrong byte size": Call(
        torch._utils._rebuild_tensor_v2, STORAGE, 1, (4,), (1,), False, {}
    ),
}


@formats
@pytest.mark.parametrize("message", HUGE)
def test_a_few_bytes_cannot_make_something_huge(
    message: str, new_format: bool, tmp_path: Path
) -> None:
    path = save(HUGE[message], tmp_path / "a.pth", new_format)
    assert re.search(message, error_of(path))


def test_a_key_that_takes_hours_to_hash_is_refused(tmp_path: Path) -> None:
    pairs = b")" + b"2\x86" * 45  # of pairs of pairs
    error_of(zipped(b"\x80\x02}" + pairs + b"K\x01s.", tmp_path / "a.pth"))


def test_more_bytes_than_are_there_are_not_read(tmp_path: Path) -> None:
    path = save({"a": torch.ones(4)}, tmp_path / "a.pth")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content.replace(b"K\x04tq", b"J\x00\x00\x01\x00tq", 1))
    error_of(path)
