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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import reporting
import study
import torch
from candidates import DTYPES, MODES, SMALLEST, Setting, Step, at_least, build, flat, one_of
from growth import Limits, free
from measure import multiply_adds, times

from agent_attention.mixers import MIXERS
from mmengine_agent.errors import UserError
from mmengine_agent.run.exit import one_line, run_tool

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
TITLES = (
    *("place", "mixer", "images", "G mult-adds", "ms", "~tokens^", "peak MiB", "train ms"),
    *("~tokens^", "peak MiB", "saved MiB", ""),
)

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
    add("--max-seconds", type=float, default=60, help="of a step (%(default)s)")
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

    for name in flat(args.place):
        rows = [row for row in flat(args.mixers) if row in PLACES[name].rows]
        for mode in args.mode:
            sweep = Sweep(name, mode, rows, limits, args.rounds)
            for sides in sorted(args.sizes, key=math.prod):
                keep(sweep.measured(Setting(device, DTYPES[args.dtype], 1, sides)))
    print(as_table(records))
    draw(path.with_suffix(".png"), records)
    print(f"written: {path}, {path.with_suffix('.png')}")


# --- measuring


class Sweep:
    """Measures all mixers in one place and mode at one size after another."""

    def __init__(self, place: str, mode: str, rows: list[str], limits: Limits, rounds: int) -> None:
        self.place, self.mode, self.rows = place, mode, rows
        self.limits, self.rounds = limits, rounds
        self.known: dict[str, list[Record]] = {row: [] for row in rows}

    def measured(self, setting: Setting) -> list[Record]:
        """A record a mixer; those that run take turns."""
        sides = "x".join(map(str, setting.size))
        reporting.say(f"{self.place}, {self.mode}, {sides}: {', '.join(self.rows)} ...")
        records = {row: self.record(row, setting) for row in self.rows}
        steps = {row: self.first(records[row], setting) for row in self.rows}
        running = {row: step for row, step in steps.items() if step is not None}
        training = self.mode == "training"
        every = times(running, self.rounds, warm_up=False, settle=training)
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
        note = too_much(self.known[row], found, self.limits)
        return {**found, "skipped": note, "reason": note} if note else found

    def model(self, row: str) -> torch.nn.Module:
        place = PLACES[self.place]
        return build(place.model, "ours", mixers=place.rows[row])

    def first(self, record: Record, setting: Setting) -> Step | None:
        """The step of a mixer after its first turn; None if it cannot run."""
        if "skipped" in record:
            return None
        try:
            step = Step(self.model(record["mixer"]), setting, self.mode)
            record["kept_memory"] = step.first()
        except torch.OutOfMemoryError as error:  # on a GPU
            torch.cuda.empty_cache()
            record.update(skipped=one_line(error), reason="out of memory")
            return None
        return step


def reason(error: ValueError) -> str:
    """The first clause of a message, for a cell of a table."""
    return str(error).partition(":")[0].partition(", got")[0]


def too_much(known: list[Record], record: Record, limits: Limits) -> str:
    """Why a mixer must not run at a size, from the sizes before; '' if nothing is against it.

    Time is expected to grow as the multiply-adds do, or as pixels if those grow less; memory as it
    did between the last two sizes, or as pixels where only one is known.
    """
    if not known:
        return ""
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


# --- results


def as_table(records: list[Record]) -> str:
    """A line for each place, size and mixer, both modes in it."""
    keys = list(dict.fromkeys((r["place"], tuple(r["size"]), r["mixer"]) for r in records))
    return reporting.table(TITLES, [cells(records, *key) for key in keys], labels=3)


def cells(records: list[Record], place: str, sides: Size, mixer: str) -> list[str]:
    """One line of the table."""
    own = [r for r in records if (r["place"], r["mixer"]) == (place, mixer)]
    by: dict[str, Record] = {r["mode"]: r for r in own if tuple(r["size"]) == sides}
    inference, training = by.get("inference", {}), by.get("training", {})
    count = inference.get("multiply_adds") or (training.get("multiply_adds") or 0) / 3
    notes = [f"{mode}: {record['reason']}" for mode, record in by.items() if "reason" in record]
    if len(notes) == len(by) and len({note.partition(": ")[2] for note in notes}) == 1:
        notes = [notes[0].partition(": ")[2]]
    return [
        *(place, mixer, "x".join(map(str, sides))),
        f"{count / 1e9:.1f}" if count else "-",
        *columns(inference, own),
        *columns(training, own),
        reporting.mebibytes(training.get("saved_bytes")),
        "; ".join(notes),
    ]


def columns(record: Record, own: list[Record]) -> list[str]:
    """Time, its growth from the size before, and peak memory, of a mode."""
    known = [r for r in own if r["mode"] == record.get("mode")]
    return [
        reporting.milliseconds(record.get("median")),
        reporting.decimals(reporting.growth(known, record, "median")),
        reporting.mebibytes(record.get("peak_memory")),
    ]


def draw(path: Path, records: list[Record]) -> None:
    """Time and peak memory against pixels: a row of plots a place, two columns a mode."""
    places = list(dict.fromkeys(r["place"] for r in records))
    modes = list(dict.fromkeys(r["mode"] for r in records))
    figure, axes = reporting.subplots(len(places), 2 * len(modes))
    figures: dict[str, Callable[[float], float]] = {
        "median": lambda value: 1e3 * value,
        "peak_memory": lambda value: value / reporting.MIB,
    }
    labels = {"median": "ms", "peak_memory": "peak memory, MiB"}
    for i, place in enumerate(places):
        panels = [(mode, key) for mode in modes for key in figures]
        for axis, (mode, key) in zip(axes[i], panels, strict=True):
            for number, mixer in enumerate(PLACES["pvt"].rows):
                wanted = (place, mode, mixer)
                own = [r for r in records if (r["place"], r["mode"], r["mixer"]) == wanted]
                own = [r for r in own if "median" in r]
                xs = [math.prod(r["size"]) for r in own]
                ys = [figures[key](r[key]) for r in own]
                style = {"linestyle": "-" if number < 10 else "--", "color": f"C{number % 10}"}
                axis.plot(xs, ys, marker="o", label=mixer, **style)
            axis.set(title=f"{place}, {mode}", ylabel=labels[key], xlabel="pixels")
            axis.set(xscale="log", yscale="log")
    axes[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_tool(main)
