"""Checkpoint files that are damaged, made anew with other parts, or hostile."""

import io
import os
import pickle
import random
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Call:
    """Has a function called when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


# ---- damage: what disks and copies do


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip(data: bytes, rng: random.Random) -> bytes:
    """One to four bits, half of the times near the ends, where headers and the pickle are."""
    content = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        near = rng.choice([len(content), 2000])
        content[rng.choice([1, -1]) * rng.randrange(1, near)] ^= 1 << rng.randrange(8)
    return bytes(content)


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A run of zeros or noise, as of a block that was not written."""
    start, length = rng.randrange(len(data)), rng.choice([1, 16, 512, 4096])
    noise = rng.choice([bytes(length), rng.randbytes(length)])
    return (data[:start] + noise + data[start + length :])[: len(data)]


def shift(data: bytes, rng: random.Random) -> bytes:
    """Bytes lost or added."""
    at, length = rng.randrange(len(data)), rng.randint(1, 40)
    return rng.choice([data[:at] + data[at + length :], data[:at] + bytes(length) + data[at:]])


def other_file(data: bytes, rng: random.Random) -> bytes:
    """Something else altogether."""
    noise = rng.randbytes(3000)
    return rng.choice(
        [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), noise, b"\x80\x02}.", b"[" * 9]
    )


DAMAGE: list[Callable[[bytes, random.Random], bytes]] = [cut, flip, overwrite, shift, other_file]


# ---- what is made on purpose


def parts_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive_of(parts: list[tuple[str, bytes]], rng: random.Random) -> bytes:
    target = io.BytesIO()
    kind = rng.choice([zipfile.ZIP_STORED] * 9 + [zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(target, "w", kind) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return target.getvalue()


def rearrange(data: bytes, rng: random.Random) -> bytes:
    """A part renamed, removed, doubled, emptied, or cut, with checksums that are right."""
    parts = list(parts_of(data).items())
    at = rng.randrange(len(parts))
    name, content = parts[at]
    new = rng.choice(["archive/x", name + "x", "../../" + name, "/" + name, name.upper(), "x"])
    ways: list[list[tuple[str, bytes]]] = [
        [(new, content)],
        [],
        [(name, content), (name, rng.randbytes(len(content)))],
        [(name, b"")],
        [(name, content[: len(content) // 2])],
        [(name, content + bytes(64))],
    ]
    parts[at : at + 1] = rng.choice(ways)
    return archive_of(parts, rng)


def reopcode(data: bytes, rng: random.Random) -> bytes:
    """Other opcodes, numbers and sizes in the pickle, with checksums that are right."""
    parts = parts_of(data)
    name = next(each for each in parts if each.endswith("data.pkl"))
    code = bytearray(parts[name])
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(code))
        code[at] = rng.choice(b"cRo\x81ib\x93Q}](t.0e2N\x8a\x8bJKMXj\xff\x00" + rng.randbytes(9))
    parts[name] = bytes(code)
    return archive_of(list(parts.items()), rng)


def saved(content: Any, rng: random.Random) -> bytes:
    """In one of torch's formats, by one of pickle's protocols."""
    target = io.BytesIO()
    new, protocol = rng.random() < 0.7, rng.choice([2, 2, 3, 4, 5])
    torch.save(content, target, pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    return target.getvalue()


def hostile(content: Any, rng: random.Random, canary: Path) -> bytes:
    """A checkpoint that would write the canary, somewhere in it, in one of many ways."""
    command, code = f"touch '{canary}'", f"open({str(canary)!r}, 'w').close()"
    calls = [
        Call(os.system, command),
        Call(eval, code),
        Call(exec, code),
        Call(open, str(canary), "w"),
        Call(subprocess.call, ["touch", str(canary)]),
        Call(os.mkdir, str(canary)),
        Call(shutil.copy, "/bin/true", str(canary)),
        Call(map, os.system, [command]),
        Call(set, Call(map, os.system, [command])),
        Call(getattr, Call(eval, code), "x"),
        Call(torch.save, 1, str(canary)),
        Call(pickle.loads, pickle.dumps(Call(os.system, command))),
        Call(torch.storage._load_from_bytes, saved(Call(os.system, command), rng)),
    ]
    texts = [
        f"import os\nos.system({command!r})",
        f"model = dict(type='os.system', command={command!r})",
    ]
    call = rng.choice([*calls, *texts])
    places = [("meta", "cfg"), ("meta", "config"), ("message_hub", "runtime_info", "cfg")]
    places += [("state_dict", "layer.weight"), ("optimizer", "state"), ("run_state", "seed")]
    if isinstance(call, Call) and rng.random() < 0.2:
        return saved(call, rng)
    return saved(_with(content, rng.choice(places), call), rng)


VALUES: list[Any] = [None, 0, -1, 2**70, float("nan"), "", "x" * 99, [], {}, (), [[]], {1: 2}]
VALUES += [torch.zeros(0), torch.ones(3, 3, 3), torch.full((4,), float("nan")), b"x", {"a": {}}]


def other_values(content: Any, rng: random.Random) -> bytes:
    """Values of wrong kinds and sizes."""
    keys = [(key,) for key in content] + [(key, each) for key in content for each in content[key]]
    if rng.random() < 0.1:
        return saved(rng.choice(VALUES), rng)
    return saved(_with(content, rng.choice(keys), rng.choice(VALUES)), rng)


def growing(rng: random.Random) -> bytes:
    """A few bytes that would become gigabytes or hours."""
    storage = torch.ones(4)._typed_storage()
    rebuild, huge = torch._utils._rebuild_tensor_v2, 10 ** rng.randint(9, 13)
    calls = [
        Call(set, range(huge)),
        Call(torch.Size, range(huge)),
        Call(bytes, huge),
        Call(bytearray, huge),
        Call(torch.UntypedStorage, huge),
        Call(rebuild, storage, 0, (huge,), (1,), False, {}),
        Call(rebuild, storage, 0, (huge,), (0,), False, {}),
        Call(rebuild, storage, huge, (1,), (1,), False, {}),
    ]
    pairs = b"\x80\x02}" + b")" + b"2\x86" * rng.randint(30, 60) + b"K\x01s."
    memo = b"Vtext\nr\xff\xff\xff" + bytes([rng.randrange(128)]) + b"."
    number = b"\x80\x02\x8b\xff\xff\xff\x7f."
    raw = [("a/data.pkl", rng.choice([pairs, memo, number])), ("a/version", b"3\n")]
    return rng.choice([saved(rng.choice(calls), rng), archive_of(raw, rng)])


def _with(node: Any, place: tuple[str, ...], value: Any) -> Any:
    """A copy of nested dicts with another value at a place."""
    first, rest = place[0], place[1:]
    if not isinstance(node, dict):
        return value
    return {**node, first: _with(node.get(first, {}), rest, value) if rest else value}


def mutated(number: int, original: Path, canary: Path) -> tuple[str, bytes]:
    """The kind of a mutation and its bytes, which follow from its number."""
    rng = random.Random(number)
    data = original.read_bytes()
    if number % 2:
        return "damage", rng.choice(DAMAGE)(data, rng)
    content = torch.load(original, weights_only=False)  # of our own making
    makers: list[Callable[[], bytes]] = [
        lambda: rearrange(data, rng),
        lambda: reopcode(data, rng),
        lambda: hostile(content, rng, canary),
        lambda: other_values(content, rng),
        lambda: growing(rng),
    ]
    return "made", makers[number // 2 % len(makers)]()


# ---- what becomes of a file
