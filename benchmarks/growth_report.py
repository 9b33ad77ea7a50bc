"""What ``growth.py`` measures at, and its tables and plots."""

from pathlib import Path
from typing import Any, NamedTuple

import reporting
from candidates import BASELINES

TITLES = ("model", "baseline", "images", "ms", "peak MiB", "kept MiB", "")

Record = dict[str, Any]


class Point(NamedTuple):
    """Images, and the side of the agent grid of all stages; None keeps the default grids."""

    size: tuple[int, int]
    batch: int
    agents: int | None = None

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1] * self.batch

    def __str__(self) -> str:
        agents = f", {self.agents}x{self.agents} agents" if self.agents else ""
        return f"{self.batch} x {self.size[0]}x{self.size[1]}{agents}"


def amount(record: Record) -> int:
    """What grows: agents, or else pixels."""
    if record["agents"]:
        return record["agents"] ** 2
    return record["size"][0] * record["size"][1] * record["batch"]


def shown(record: Record) -> str:
    return str(Point(tuple(record["size"]), record["batch"], record["agents"]))


def as_table(records: list[Record]) -> str:
    rows = [
        [
            *(record["model"], record["baseline"], shown(record)),
            reporting.milliseconds(record.get("median")),
            reporting.mebibytes(record.get("peak_memory")),
            reporting.mebibytes(record.get("kept_memory")),
            record.get("skipped", ""),
        ]
        for record in records
    ]
    return reporting.table(TITLES, rows, labels=3)


def ratio_table(records: list[Record]) -> str:
    rows = [
        [
            *(record["model"], record["baseline"], record["ratio"]),
            reporting.decimals(record["median"]),
            reporting.decimals(record["peak_memory"]),
        ]
        for record in records
        if "ratio" in record
    ]
    return reporting.table(("model", "baseline", "ratio of", "time", "memory"), rows, labels=3)


def draw(path: Path, records: list[Record], kind: str) -> None:
    """Time and memory against pixels or agents, a column of plots a model."""
    models = list(dict.fromkeys(record["model"] for record in records))
    figure, axes = reporting.subplots(2, len(models))
    rows = (("median", 1e3, "ms"), ("peak_memory", 1 / reporting.MIB, "peak memory, MiB"))
    for j, model in enumerate(models):
        for i, (key, factor, label) in enumerate(rows):
            own = [r for r in records if r["model"] == model and key in r]
            lines(axes[i, j], own, key, factor)
            axes[i, j].set(title=model, ylabel=label, xscale="log", yscale="log")
            axes[i, j].set_xlabel("agents" if kind == "agents" else "pixels")
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)


def lines(axis: Any, records: list[Record], key: str, factor: float) -> None:
    """A line a form."""
    for number, baseline in enumerate(BASELINES):
        own = [record for record in records if record["baseline"] == baseline]
        if not own:
            continue
        xs, ys = [amount(r) for r in own], [factor * r[key] for r in own]
        axis.plot(xs, ys, marker="o", label=baseline, color=f"C{number}")
