"""Time and memory of backbones as images or agents grow in number.

    python benchmarks/growth.py --models pvt-t
    python benchmarks/growth.py --models swin-t --agents 7 14 28 56 --size 800 1344
    python benchmarks/growth.py --models pvt-t --ratios

Sweeps square images with the default agents; with --agents, agent grids on one size of image; with
--ratios, measures 2160x3840 against 1080x1920 and a batch of 8 against 1. Candidates take turns.
Writes DIR/growth-{sizes,agents,ratios}.json with every single time, and a log-log .png of a sweep.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import reporting
import torch
from candidates import BASELINES, MODES, Setting, Step, add_flags, at_least, build, flat, one_of
from candidates import setting as read_setting
from growth_report import Point, Record, amount, as_table, draw, ratio_table, shown
from measure import times

from mmengine_agent.run.exit import run_tool

SIZES = (512, 768, 1024, 1536, 2048, 3072)
FORMS = tuple(b for b in BASELINES if b != "resnet-50")
DEFAULT_FORMS = ("ours", "published", "softmax")
QUADRATIC = 2.0  # growth with the number of pixels that is feared before two points are known


RATIOS = (
    (Point((2160, 3840), 1), Point((1080, 1920), 1)),
    (Point((512, 512), 8), Point((512, 512), 1)),
)


class Limits(NamedTuple):
    """What is too much: bytes of one step's growth, and seconds of one step."""

    max_memory: float
    max_seconds: float


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser, ["pvt-t", "swin-t"])
    parser.add_argument("--mode", choices=MODES, default="inference", help="%(default)s")
    parser.add_argument(
        "--baselines",
        type=one_of(FORMS),
        nargs="+",
        metavar="NAME",
        help=f"of {', '.join(FORMS)}; default: {' '.join(DEFAULT_FORMS)}, for --ratios only ours",
    )
    parser.add_argument(
        "--sizes", type=at_least(1), nargs="+", default=SIZES, metavar="PIXELS", help="%(default)s"
    )
    parser.add_argument("--agents", type=at_least(1), nargs="+", metavar="SIDE")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"), help="for --agents"
    )
    parser.add_argument("--ratios", action="store_true", help="the two ratios; without limits")
    parser.add_argument("--max-memory-gib", type=float, help="default: 80 %% of what is free")
    parser.add_argument("--max-seconds", type=float, default=60, help="of a step (%(default)s)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    setting = read_setting(args, args.size if args.agents else (min(args.sizes),) * 2)
    memory = args.max_memory_gib * 2**30 if args.max_memory_gib else 0.8 * free(setting.device)
    limits = Limits(memory, args.max_seconds)
    kind = "ratios" if args.ratios else "agents" if args.agents else "sizes"
    path = Path(args.out, f"growth-{kind}.json")
    head = {**reporting.header(), **setting.described(), "mode": args.mode, **limits._asdict()}
    records: list[Record] = []

    def keep(found: list[Record]) -> None:
        records.extend(found)
        reporting.write_json(path, {**head, "records": records})
        if kind != "ratios":
            draw(path.with_suffix(".png"), records, kind)

    default = ["ours"] if args.ratios else list(DEFAULT_FORMS)
    baselines = flat(args.baselines or [default])
    for name in flat(args.models):
        series = Series(name, baselines, args.mode, setting, args.repeats, limits)
        if kind == "ratios":
            for big, small in RATIOS:
                keep(series.ratio(big, small))
        else:
            series.sweep(points(args), keep)
    print(ratio_table(records) if kind == "ratios" else as_table(records))
    print(f"written: {path}" + ("" if kind == "ratios" else f", {path.with_suffix('.png')}"))


def points(args: argparse.Namespace) -> list[Point]:
    """The points of a sweep, from small to large."""
    if args.agents:
        return [Point(tuple(args.size), args.batch, side) for side in sorted(args.agents)]
    return [Point((side, side), args.batch) for side in sorted(args.sizes)]


def free(device: torch.device) -> float:
    """Bytes of memory that are free; without bound, in effect, where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    kib = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return kib[0] * 1024 if kib else sys.maxsize


# --- measuring


class Series:
    """Measures forms of one model at one point after another."""

    def __init__(
        self,
        name: str,
        baselines: list[str],
        mode: str,
        setting: Setting,
        repeats: int,
        limits: Limits,
    ) -> None:
        self.name, self.mode, self.setting = name, mode, setting
        self.baselines, self.repeats, self.limits = baselines, repeats, limits

    def sweep(self, points: list[Point], keep: Callable[[list[Record]], None]) -> None:
        """Measure the points in turn; a form that has become too large is left out."""
        known: dict[str, list[Record]] = {baseline: [] for baseline in self.baselines}
        for point in points:
            reporting.say(f"{self.name}, {self.mode}: {point}, {self.repeats} rounds ...")
            notes = {b: excess(known[b], point, self.limits) for b in self.baselines}
            if point.agents and known.get("softmax"):
                notes["softmax"] = "has no agents"
            steps = {b: self.step(b, point) for b in self.baselines if not notes[b]}
            found = self.measured(steps, point)
            for record in found:
                known[record["baseline"]].append(record)
            skipped = [self.record(b, point, skipped=note) for b, note in notes.items() if note]
            keep(found + skipped)

    def ratio(self, big: Point, small: Point) -> list[Record]:
        """For each form: both points, which take turns."""
        found = []
        for baseline in self.baselines:
            reporting.say(f"{self.name}, {self.mode}: {baseline}, {big} / {small} ...")
            steps = {str(point): self.step(baseline, point) for point in (big, small)}
            kept = {key: step.first() for key, step in steps.items()}
            every = times(steps, self.repeats, warm_up=False)
            records = [
                self.filled(baseline, p, steps[str(p)], every[str(p)], kept[str(p)])
                for p in (big, small)
            ]
            over = {key: records[0][key] / records[1][key] for key in ("median", "peak_memory")}
            found += [*records, self.record(baseline, big, ratio=f"{big} / {small}", **over)]
        return found

    def measured(self, steps: dict[str, Step], point: Point) -> list[Record]:
        """A record a form; those that a GPU has no memory for are noted, others take turns."""
        kept = {b: kept_bytes(step) for b, step in steps.items()}
        steps = {b: step for b, step in steps.items() if kept[b] is not None}
        every = times(steps, self.repeats, warm_up=False)
        found = [self.filled(b, point, step, every[b], kept[b]) for b, step in steps.items()]
        lost = [b for b in kept if b not in steps]
        return found + [self.record(b, point, skipped="out of memory") for b in lost]

    def step(self, baseline: str, point: Point) -> Step:
        options = {"agent_shapes": ((point.agents,) * 2,) * 4} if point.agents else {}
        setting = replace(self.setting, size=point.size, batch=point.batch)
        return Step(build(self.name, baseline, **options), setting, self.mode)

    def filled(
        self, baseline: str, point: Point, step: Step, every: list[float], kept: int | None
    ) -> Record:
        median = statistics.median(every)
        more = {"times": every, "median": median, "kept_memory": kept}
        return self.record(baseline, point, **more, **step.memory())

    def record(self, baseline: str, point: Point, **more: Any) -> Record:
        place = {"model": self.name, "baseline": baseline, "mode": self.mode}
        return {**place, **point._asdict(), **more}


def kept_bytes(step: Step) -> int | None:
    """What a model keeps from its first step; None if the GPU is out of memory."""
    try:
        return step.first()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def excess(known: list[Record], point: Point, limits: Limits) -> str:
    """Why a form must not be measured at a point, from the last two points; '' if nothing is."""
    done = [record for record in known if "median" in record]
    if len(done) < len(known):
        return "out of memory before"
    if not done:
        return ""
    if done[-1]["median"] > limits.max_seconds:
        return f"took {done[-1]['median']:.0f} s at {shown(done[-1])}"
    expected = extrapolated(done, point)
    if expected > limits.max_memory:
        return f"would take about {expected / 2**30:.1f} GiB"
    return ""


def extrapolated(done: list[Record], point: Point) -> float:
    """Peak memory expected at a point: a power of pixels (or agents) through the last two."""
    xs, ys = [amount(r) for r in done[-2:]], [r["peak_memory"] for r in done[-2:]]
    power = QUADRATIC
    if len(xs) == 2 and xs[0] != xs[1]:
        power = max(1.0, math.log(ys[1] / ys[0]) / math.log(xs[1] / xs[0]))
    goal = point.agents**2 if point.agents else point.pixels
    return ys[-1] * (goal / xs[-1]) ** power


if __name__ == "__main__":
    run_tool(main)
