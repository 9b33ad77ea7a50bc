"""The table and the plots of what mixers cost, from the records of ``mixers.py``."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import reporting

TITLES = (
    *("place", "mixer", "images", "G mult-adds", "ms", "~tokens^", "peak MiB", "train ms"),
    *("~tokens^", "peak MiB", "saved MiB", ""),
)

Record = dict[str, Any]
Size = tuple[int, int]


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
    mixers = list(dict.fromkeys(r["mixer"] for r in records))
    figure, axes = reporting.subplots(len(places), 2 * len(modes))
    figures: dict[str, Callable[[float], float]] = {
        "median": lambda value: 1e3 * value,
        "peak_memory": lambda value: value / reporting.MIB,
    }
    labels = {"median": "ms", "peak_memory": "peak memory, MiB"}
    for i, place in enumerate(places):
        panels = [(mode, key) for mode in modes for key in figures]
        for axis, (mode, key) in zip(axes[i], panels, strict=True):
            for number, mixer in enumerate(mixers):
                wanted = (place, mode, mixer)
                own = [r for r in records if (r["place"], r["mode"], r["mixer"]) == wanted]
                own = [r for r in own if "median" in r]
                xs = [math.prod(r["size"]) for r in own]
                ys = [figures[key](r[key]) for r in own]
                style = {"linestyle": "-" if number < 10 else "--", "color": f"C{number % 10}"}
                axis.plot(xs, ys, marker="o", label=mixer, **style)
            sizes = sorted(
                {tuple(r["size"]) for r in records if r["place"] == place}, key=math.prod
            )
            axis.set(title=f"{place}, {mode}", ylabel=labels[key], xlabel="size, in pixels")
            axis.set(xscale="log", yscale="log")
            axis.set_xticks([math.prod(s) for s in sizes], ["x".join(map(str, s)) for s in sizes])
            axis.set_xticks([], minor=True)
    axes[0, 0].legend(fontsize="x-small", loc="upper left")
    figure.savefig(path, dpi=120)
