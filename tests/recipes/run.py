"""Run every recipe, through every tool, as users do: a row of a table each.

    make recipes
    python tests/recipes/run.py retinanet_agent-pvt-t_fpn_1x_coco "UPerNet, all flags"
    python tests/recipes/run.py --list

The config is the published one; only data, length and the size of images are small (small.py says
how). It is trained to its end; trained again, with SIGTERM, --resume, SIGKILL and --resume in the
middle, to the same end bit for bit; tested, predicted with, reported, converted, given to the stock
tool and the stock Inferencer, its agents drawn, its FLOPs counted (see recipe_steps.py). One
recipe of each kind is run with all training flags, too, one with two processes, and a narrow one is
exported. What every tool prints is read: a line that is not listed in said.py is a fault. Exit code
1 if anything was broken; its folder stays, without weights.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

import chain
import make_demo_data
import recipe_steps
from chain import Broken, Case, Chain
from small import KINDS, Cut, recipes

Step = Callable[[Chain], None]
FLAGS = (
    *("--ema", "0.9", "--accumulate", "2", "--early-stop", "2", "--clip-grad", "1"),
    "--auto-scale-lr",
)
NARROW = Cut(narrow=True)


def cases() -> list[tuple[Case, tuple[Step, ...]]]:
    """All that is run, and through which steps."""
    known, all_steps = recipes(), (*recipe_steps.TRAINING, *recipe_steps.USING)
    together = (
        *(step for step in recipe_steps.TRAINING if step is not recipe_steps.killed),
        recipe_steps.tested,
    )
    found = [
        (Case(name, path), (*all_steps, *recipe_steps.LOOKING)) for name, path in known.items()
    ]
    for kind, name in KINDS.items():
        options = ("model.backbone.with_cp=True",)
        flagged = Case(f"{kind}, all flags", known[name], FLAGS, options)
        found += [(flagged, all_steps)]
    for kind, name in KINDS.items():
        found += [(Case(f"{kind}, two processes", known[name], processes=2), together)]
    for kind, name in KINDS.items():
        found += [(Case(f"{kind}, export", known[name], cut=NARROW), (recipe_steps.exported,))]
    return found


def run(case: Case, todo: tuple[Step, ...], folder: Path, data: Path) -> bool:
    """Run a case and print its row; whether all was well."""
    begun, passed = time.monotonic(), 0
    work = Chain(case, folder, data)
    problems = work.problems
    try:
        for step in todo:
            known = len(problems)
            step(work)
            passed += len(problems) == known
    except Broken as error:
        problems.append(f"{step.__name__}: {error}")
    seconds = time.monotonic() - begun
    print(f"| {case.name} | {passed} of {len(todo)} | {seconds:.0f} s |", flush=True)
    if problems:
        print(f"{case.name} ({folder}):", *problems, sep="\n  ", file=sys.stderr, flush=True)
    chain.clean(folder, everything=not problems)
    return not problems


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("only", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--list", action="store_true", help="print the names, and end")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="at a time; %(default)s")
    args = parser.parse_args()
    known = {case.name: (case, steps) for case, steps in cases()}
    if args.list:
        print(*known, sep="\n")
        return 0
    for name in args.only:
        if name not in known:
            parser.error(f"there is no {name!r}; --list prints the names")
    place = Path(tempfile.mkdtemp(prefix="recipes-"))
    make_demo_data.generate(place / "data", train=5, val=2, size=96)
    print("| recipe | steps | time |\n|---|---|---|", flush=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        wanted = [known[name] for name in args.only or known]
        done = pool.map(
            lambda each: run(*each, place / each[0].name.replace(" ", "_"), place / "data"), wanted
        )
        good = all([*done])
    if good:
        chain.clean(place, everything=True)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
