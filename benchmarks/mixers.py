"""All mixers in one place: what each costs and, by --study, what each scores.

    python benchmarks/mixers.py                                     # PVT-T and ViT-T, three sizes
    python benchmarks/mixers.py --place pvt --sizes 512x512 --mixers agent,norm
    python benchmarks/mixers.py --study work_dirs/study --budget 2000

Without --study: time, memory and multiply-adds of the backbone with each mixer in all its blocks.
Mixers take turns, round after round. One that cannot run in a place or at a size, or would take
longer or more memory than allowed, judged by its last size, is left out with the reason. Writes
DIR/mixers.json with every single time, and mixers.png, after each size.

With --study: ``study.py`` trains and tests, and ``study_page.py`` makes the tables and plots.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import reporting
import study
import torch
from candidates import DTYPES, MODES, SMALLEST, Setting, Step, at_least, build, flat, one_of
from growth import Limits, free
from measure import matmul_peak, multiply_adds, times
from mixers_report import as_table, draw

from agent_attention.mixers import MIXERS
from mmengine_agent.errors import UserError, one_line
from mmengine_agent.run.exit import run_tool

TRANSNORMER = "transnormer"  # its paper's mixture, in stages


class Place(NamedTuple):
    """A backbone, and what its ``mixers`` is for each row of the table."""

    model: str  # key of ``candidates.MODELS``
    rows: Mapping[str, Any]


PLACES = {
    "pvt": Place(
        "pvt-t",
        {**{name: (name,) * 4 for name in MIXERS}, TRANSNORMER: ("diag", "diag", "norm", "norm")},
    ),
    # with R = 1, as its single stage would have, 'reduced' is softmax
    "vit": Place("vit-t", {name: name for name in MIXERS if name != "reduced"}),
}
SIZES = ((512, 512), (800, 1344), (2160, 3840))
Record = dict[str, Any]
Size = tuple[int, int]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument_group("the table").add_argument
    add("--place", type=one_of(PLACES), nargs="+", default=[list(PLACES)], metavar="NAME")
    names = list(PLACES["pvt"].rows)
    add("--mixers", type=one_of(names), nargs="+", default=[names], metavar="NAME")
    add("--sizes", type=size, nargs="+", default=SIZES, metavar="HxW", help="in pixels")
    add("--mode", choices=MODES, nargs="+", default=MODES, help="both by default")
    add("--rounds", type=at_least(1), default=3, help="%(default)s")
    add(
        "--max-seconds",
        type=float,
        default=60,
        help="of a step, and of a mixer's rounds (%(default)s)",
    )
    add("--max-memory-gib", type=float, help="of a step; default: 80 %% of what is free")
    add("--dtype", choices=DTYPES, default="float32", help="%(choices)s")
    add("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    add("--threads", type=at_least(1), help="CPU threads of torch")
    add("--out", default="work_dirs/benchmarks", metavar="DIR", help="%(default)s")
    study.add_flags(parser)
    return parser.parse_args()


def size(text: str) -> Size:
    """Type of a flag: '800x1344' is (800, 1344).

    Raises:
        ArgumentTypeError: if it is not two numbers, or an image is too small.
    """
    sides = [int(part) for part in text.split("x") if part.isdecimal()]
    if len(sides) != 2 or text.count("x") != 1 or min(sides) < SMALLEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no HxW with sides from {SMALLEST}")
    return sides[0], sides[1]


def main() -> None:
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.study:
        study.study(args)
    else:
        make_table(args)


def make_table(args: argparse.Namespace) -> None:
    """Measure, write after each size, print.

    Raises:
        UserError: if there is no GPU but one is asked for.
    """
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU; leave the flag out to use the CPU")
    limits = Limits((args.max_memory_gib or sys.maxsize) * 2**30, args.max_seconds)
    if not args.max_memory_gib:
        limits = limits._replace(max_memory=0.8 * free(device))
    path = Path(args.out, "mixers.json")
    head = {**reporting.header(), "device": str(device), "dtype": args.dtype, **limits._asdict()}
    records: list[Record] = []

    def keep(found: list[Record]) -> None:
        records.extend(found)
        reporting.write_json(path, {**head, "records": records})

    product, flops = matmul_peak(DTYPES[args.dtype], device)
    rate = flops / 2 / min(times({"product": product}, 3)["product"])
    for name in flat(args.place):
        rows = [row for row in flat(args.mixers) if row in PLACES[name].rows]
        for mode in args.mode:
            sweep = Sweep(name, mode, rows, limits, args.rounds, rate, before=records)
            for sides in sorted(args.sizes, key=math.prod):
                keep(sweep.measured(Setting(device, DTYPES[args.dtype], 1, sides)))
    print(as_table(records))
    draw(path.with_suffix(".png"), records)
    print(f"written: {path}, {path.with_suffix('.png')}")


# --- measuring


class Sweep:
    """Measures all mixers in one place and mode at one size after another."""

    def __init__(
        self,
        place: str,
        mode: str,
        rows: list[str],
        limits: Limits,
        rounds: int,
        rate: float,
        before: list[Record],
    ) -> None:
        self.place, self.mode, self.rows = place, mode, rows
        self.limits, self.rounds, self.rate, self.before = limits, rounds, rate, before
        self.known: dict[str, list[Record]] = {row: [] for row in rows}

    def measured(self, setting: Setting) -> list[Record]:
        """A record a mixer; those that run take turns, fewer where a step takes long."""
        sides = "x".join(map(str, setting.size))
        reporting.say(f"{self.place}, {self.mode}, {sides}: {', '.join(self.rows)} ...")
        records = {row: self.record(row, setting) for row in self.rows}
        steps = {row: self.first(records[row], setting) for row in self.rows}
        running = {row: step for row, step in steps.items() if step is not None}
        slowest = max([1e-3, *(records[row]["first"] for row in running)])
        rounds = min(self.rounds, max(1, int(self.limits.max_seconds / slowest)))
        settle = self.mode == "training" and rounds > 1
        every = times(running, rounds, warm_up=False, settle=settle)
        for row, step in running.items():
            more = {"times": every[row], "median": statistics.median(every[row])}
            records[row].update(more, **step.memory())
            self.known[row].append(records[row])
        return list(records.values())

    def record(self, row: str, setting: Setting) -> Record:
        """What is known of a mixer at a size before it runs, and why it must not, if so."""
        found: Record = {"place": self.place, "mixer": row, "mode": self.mode}
        found.update(size=list(setting.size), multiply_adds=None)
        try:
            counted = multiply_adds(self.model(row), setting.shape)
        except ValueError as error:  # a mixer's own limit
            return {**found, "skipped": str(error), "reason": reason(error)}
        found["multiply_adds"] = counted * (3 if self.mode == "training" else 1)
        least = max(found["multiply_adds"] / self.rate, 3 * self.inference(row, setting))
        note = too_much(self.known[row], found, self.limits, least)
        return {**found, "skipped": note, "reason": note} if note else found

    def inference(self, row: str, setting: Setting) -> float:
        """Seconds of the inference step at this size, where this is training and it is known."""
        wanted = (self.place, row, list(setting.size))
        same = (r for r in self.before if (r["place"], r["mixer"], r["size"]) == wanted)
        return next((float(r["median"]) for r in same if "median" in r), 0.0)

    def model(self, row: str) -> torch.nn.Module:
        place = PLACES[self.place]
        return build(place.model, "ours", mixers=place.rows[row])

    def first(self, record: Record, setting: Setting) -> Step | None:
        """The step of a mixer after its first turn; None if it cannot run."""
        if "skipped" in record:
            return None
        try:
            step = Step(self.model(record["mixer"]), setting, self.mode)
            started = time.perf_counter()
            record["kept_memory"] = step.first()
            record["first"] = time.perf_counter() - started
        except torch.OutOfMemoryError as error:  # on a GPU
            torch.cuda.empty_cache()
            record.update(skipped=one_line(error), reason="out of memory")
            return None
        return step


def reason(error: ValueError) -> str:
    """The first clause of a message, for a cell of a table."""
    return str(error).partition(":")[0].partition(", got")[0]


def too_much(known: list[Record], record: Record, limits: Limits, least: float) -> str:
    """Why a mixer must not run at a size, from the sizes before; '' if nothing is against it.

    Time is expected to grow as the multiply-adds do, or as pixels if those grow less; memory as it
    did between the last two sizes, or as pixels where only one is known. At the first size time is
    expected to be ``least``.

    Args:
        known: of the sizes before, with ``median`` and ``peak_memory``.
        record: of the size, with ``multiply_adds``.
        limits: what is too much.
        least: seconds that a matrix product of as many multiply-adds takes, for example.
    """
    if not known:
        return f"would take at least {least:.0f} s" if least > limits.max_seconds else ""
    last = known[-1]
    pixels = math.prod(record["size"]) / math.prod(last["size"])
    work = record["multiply_adds"] / max(1, last["multiply_adds"])
    seconds = last["median"] * max(pixels, work)
    if seconds > limits.max_seconds:
        return f"would take about {seconds:.0f} s"
    power = max(1.0, reporting.growth(known[:-1], last, "peak_memory") or 1.0)
    memory = last["peak_memory"] * pixels**power
    if memory > limits.max_memory:
        return f"would take about {memory / 2**30:.0f} GiB"
    return ""


if __name__ == "__main__":
    run_tool(main)
