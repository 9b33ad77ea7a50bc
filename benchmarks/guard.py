"""Compare the speed of the working tree with that of a commit; exit code 1 if a row is slower.

    python benchmarks/guard.py main
    python benchmarks/guard.py HEAD~3 --only swin-t training

The commit is checked out beside the working tree, and each of the two has a process of its own.
They take turns, row after row, so that noise of a shared machine hits both alike. A row is slower
if its ratio, the median over rounds of here / commit, is above ``--allowed``, and is so again when
the row is measured anew. Needs torch and git alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HERE, BASE = "here", "base"
MODELS = {"pvt-t": "AgentPVT", "swin-t": "AgentSwinTransformer"}
ROWS = list(product(MODELS, ("inference", "training"), ("256x320", "512x512")))
Row = tuple[str, str, str]  # model, mode, height x width
Turn = Callable[[str, Row], float]  # the seconds that a step of a row takes HERE, or in BASE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("commit", help="what to compare with: a branch, a tag, a hash")
    add("--only", nargs="+", choices=sorted({*sum(ROWS, ())}), default=[], help="%(choices)s")
    add("--rounds", type=int, default=7, help="%(default)s")
    add("--allowed", type=float, default=1.1, help="largest ratio (%(default)s)")
    args = parser.parse_args()
    rows = [row for row in ROWS if set(args.only) <= set(row)] or parser.error("--only: no row")
    with checked_out(args.commit) as base, ExitStack() as stack:
        trees = {HERE: ROOT, BASE: base}
        ask = {name: stack.enter_context(worker(tree)) for name, tree in trees.items()}
        slow = slower(rows, lambda name, row: ask[name](row), args.rounds, args.allowed)
    if slow:
        texts = [f"{' '.join(row)} takes {ratio:.2f} times as long" for row, ratio in slow.items()]
        sys.exit(f"error: {', '.join(texts)} as at {args.commit}; allowed are {args.allowed:.2f}")


def slower(rows: Sequence[Row], turn: Turn, rounds: int, allowed: float) -> dict[Row, float]:
    """The rows that are slower, by both of two measurements, and the smaller of their ratios."""
    found = {row: measured(row, turn, rounds) for row in rows}
    again = [row for row, ratio in found.items() if ratio > allowed]
    if again:
        print(f"above {allowed:.2f}, and so measured anew:")
    ratios = {row: min(found[row], measured(row, turn, rounds)) for row in again}
    return {row: ratio for row, ratio in ratios.items() if ratio > allowed}


def measured(row: Row, turn: Turn, rounds: int) -> float:
    """The median over rounds of here / base; both have a turn a round, and who is first changes."""
    times: dict[str, list[float]] = {HERE: [], BASE: []}
    for number in range(rounds):
        for name in (HERE, BASE) if number % 2 else (BASE, HERE):
            times[name].append(turn(name, row))
    ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
    here, base = (f"{1e3 * statistics.median(each):.1f} ms" for each in times.values())
    print("{:<7} {:<10} {:<9}".format(*row), f"{here:>12}, was {base:>12}: {ratio:.2f}", flush=True)
    return ratio


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A worktree of a commit, for a while."""
    git = ("git", "-C", str(ROOT), "worktree")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "base")
        add = [*git, "add", "--detach", str(tree), commit]
        done = subprocess.run(add, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: cannot check out {commit}: {done.stderr.strip()}")
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


@contextmanager
def worker(tree: Path) -> Iterator[Callable[[Row], float]]:
    """A process with the package of ``tree``, to be asked for the seconds of rows."""
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process: Any = subprocess.Popen(
        [sys.executable, "-c", f"import guard; guard.serve({str(tree)!r})"],
        env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": f"{ROOT}/benchmarks"},
        cwd=tree,  # where Python looks first
        **pipes,
    )

    def ask(row: Row) -> float:
        print(json.dumps(row), file=process.stdin, flush=True)
        answer = process.stdout.readline()
        if not answer:
            sys.exit(f"error: the package in {tree} cannot run {' '.join(row)}; see above")
        return float(answer)

    with process:
        yield ask


def serve(tree: str) -> None:
    """Answer each row on stdin with the seconds of one step, until there are no more."""
    import agent_attention

    assert Path(tree) in Path(agent_attention.__file__).parents, agent_attention.__file__
    for line in sys.stdin:
        step = make_step(*json.loads(line))
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


@cache
def make_step(model: str, mode: str, size: str) -> Callable[[], None]:
    """A step on one image, done once to warm up: maps, or gradients of their means too."""
    import torch

    import agent_attention

    backbone = getattr(agent_attention, MODELS[model])("tiny").train(mode == "training")
    image = torch.randn(1, 3, *map(int, size.split("x")))

    def step() -> None:
        with torch.set_grad_enabled(mode == "training"):
            total = torch.stack([each.mean() for each in backbone(image)]).sum()
            if mode == "training":
                total.backward()
                backbone.zero_grad()

    step()
    return step


if __name__ == "__main__":
    main()
