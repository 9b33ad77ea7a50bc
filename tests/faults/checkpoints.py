"""Mutated and hostile checkpoints: none runs anything, none is loaded silently wrong.

    python tests/faults/checkpoints.py --count 1000

The last checkpoint of a small run is cut, overwritten and flipped in places; its archive is written
anew with parts renamed, removed, doubled and emptied; its pickle gets other opcodes, numbers and
sizes; and pickles are made that call functions, hold values of wrong kinds, or grow. Each file is
read as every tool reads it, and stands as the newest in a work directory that --resume looks at.
Damage must be refused, or the content be the original's, bit for bit. Files made on purpose, with
checksums that are right, may be read as what they say, if they do nothing. Processes have little
memory and time. Prints a row of a table; exit code 1 if a promise was broken.
"""

import argparse
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a pool of threads does not survive a fork
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import CheckpointLoader
from tiny_runs import toy, train
from tqdm import tqdm

from agent_attention.weights.read import CheckpointError
from mmengine_agent.checkpoints import load_local
from mmengine_agent.errors import UserError
from mmengine_agent.resume.newest import newest_whole

SECONDS = 20  # for one file: more is a hang
MEGABYTES = 1500  # more than a process needs that has imported everything
CHUNK = 25  # files a process looks at
BAD = ("executed", "loaded wrong", "hung", "crashed", "unclear message", "--resume misled")


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


def look_at(number: int, original: Path, folder: Path) -> str:
    """What becomes of one file."""
    canary, path = folder / "canary", folder / "iter_2.pth"
    kind, data = mutated(number, original, canary)
    path.write_bytes(data)
    try:
        content = CheckpointLoader.load_checkpoint(str(path), "cpu")
        found, same = "loaded", same_content(content, original)
        run_configs(content)
        if not same:
            go_on_with(path, folder / f"run{number}")
    except (CheckpointError, UserError) as error:
        found, same = "refused", False
        if "\n" in str(error) or str(path) not in str(error):
            return "unclear message"
    if canary.exists():
        return "executed"
    if kind == "damage" and found == "loaded" and not same:
        return "loaded wrong"
    if kind == "damage" and resumed(folder).name != ("iter_2.pth" if same else "iter_1.pth"):
        return "--resume misled"
    return found if found == "refused" else "the original" if same else "read as it says"


def run_configs(content: Any) -> None:
    """What mmengine does with configs in a checkpoint, when it resumes or makes an Inferencer."""
    for place in (("meta", "config"), ("meta", "cfg"), ("message_hub", "runtime_info", "cfg")):
        with suppress(Exception):
            text = reduce(lambda node, key: node[key], place, content)
            MODELS.build(Config.fromstring(text, ".py").model)


def go_on_with(path: Path, work_dir: Path) -> None:
    """Train from a file that can be read, up to the end."""
    cfg = toy(work_dir, by_epoch=False)
    try:
        train(cfg, resume=path)
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def resumed(folder: Path) -> Path:
    """What --resume takes of a folder, in which the mutated file is the newest."""
    (folder / "last_checkpoint").write_text(str(folder / "iter_2.pth"))
    found = newest_whole(Config({"work_dir": str(folder)}), lambda text: None)
    assert found is not None
    return found


def same_content(found: Any, original: Path) -> bool:
    """Whether all that is in it is the original's, bit for bit."""
    wanted = load_local(str(original))
    return described(found) == described(wanted)


def described(node: Any) -> Any:
    """Tensors and objects as bytes, which compare, also where a number is none."""
    if isinstance(node, dict):
        return [(key, described(value)) for key, value in node.items()]
    if isinstance(node, list | tuple):
        return [type(node).__name__, *map(described, node)]
    if isinstance(node, torch.Tensor):
        return node.dtype, tuple(node.shape), node.detach().contiguous().numpy().tobytes()
    if hasattr(node, "__dict__"):
        return type(node).__name__, described(vars(node))
    return pickle.dumps(node)


# ---- many files


def run(count: int, first: int = 0) -> Counter[str]:
    """What became of files ``first`` to ``first + count``, counted."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original = make_original(folder)
        todo = list(range(first, first + count))
        with tqdm(total=count, desc="files") as bar:
            while todo:
                done = look_at_some(todo[:CHUNK], original, folder)
                for number, what in done.items():
                    found[what] += 1
                    if what in BAD:
                        print(f"file {number}: {what}", file=sys.stderr)
                todo = [number for number in todo if number not in done]
                bar.update(len(done))
    return found


def make_original(folder: Path) -> Path:
    train(toy(folder / "run", by_epoch=False), seed=1)
    shutil.copy(folder / "run/iter_12.pth", folder / "iter_1.pth")
    return folder / "iter_1.pth"


def look_at_some(numbers: list[int], original: Path, folder: Path) -> dict[int, str]:
    """What became of files, in a process of its own; if it ends early, up to the one at fault."""
    log = folder / "log"
    log.write_text("")
    child = os.fork()
    if not child:
        work_apart(numbers, original, folder, log)
    how, seen, since = None, 0, time.monotonic()
    while how is None:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            how = "crashed" if status else "done"
        elif (size := log.stat().st_size) != seen:
            seen, since = size, time.monotonic()
        elif time.monotonic() - since > SECONDS:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            how = "hung"
        time.sleep(0.01)
    done = dict(json.loads(line) for line in log.read_text().splitlines())
    if how != "done":
        done[next(number for number in numbers if number not in done)] = how
    (folder / "canary").unlink(missing_ok=True)
    return done


def work_apart(numbers: list[int], original: Path, folder: Path, log: Path) -> None:
    """Look at files with little memory, and end this process."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        limit = used + MEGABYTES * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        with log.open("a") as file:
            for number in numbers:
                file.write(json.dumps([number, look_at(number, original, folder)]) + "\n")
                file.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    os._exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first")
    args = parser.parse_args()
    begun = time.monotonic()
    found = run(args.count, args.first)
    good = ", ".join(f"{what} {count}" for what, count in found.items() if what not in BAD)
    bad = ", ".join(f"{what} {found[what]}" for what in BAD)
    wanted = "none executes anything, is loaded silently wrong, or hangs; one clear line each"
    seconds = time.monotonic() - begun
    print(f"| {args.count} mutated checkpoints | {wanted} | {good}; {bad}; {seconds:.0f} s |")
    return int(any(found[what] for what in BAD))


if __name__ == "__main__":
    sys.exit(main())
