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
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
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
from mutations import mutated
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
    if isinstance(node, type):  # a stand-in
        return node.__name__
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
