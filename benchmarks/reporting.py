"""What the benchmarks share in reporting: the header of a JSON file, tables, plots."""

import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

MIB = 2**20


def header() -> dict[str, Any]:
    """Where, when and how figures were measured."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def cpu_name() -> str:
    """The processor's name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=2) + "\n")
    os.replace(part, path)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], labels: int = 1) -> str:
    """Rows as text; the first ``labels`` columns are flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    lines = []
    for row in [titles, *rows]:
        cells = zip(row, widths, strict=True)
        aligned = [c.rjust(w) if i >= labels else c.ljust(w) for i, (c, w) in enumerate(cells)]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def markdown(titles: list[str], rows: list[list[str]]) -> str:
    """A table of Markdown, its first column flush left."""
    lines = [titles, ["---"] + ["--:"] * (len(titles) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.1f}"


def mebibytes(count: float | None) -> str:
    return "-" if count is None else f"{count / MIB:.1f}"


def decimals(value: float | None, places: int = 2) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def growth(records: Sequence[dict[str, Any]], record: dict[str, Any], key: str) -> float | None:
    """p, where a figure has grown as (number of pixels)^p since the next smaller size.

    Args:
        records: with ``size`` (H, W) and, those that were measured, ``key``; in any order.
        record: of the larger size.
        key: of the figure.
    """
    area = math.prod(record.get("size", ()))
    known = [each for each in records if key in each and math.prod(each["size"]) < area]
    if not known or key not in record:
        return None
    last = max(known, key=lambda each: math.prod(each["size"]))
    return math.log(record[key] / last[key]) / math.log(area / math.prod(last["size"]))


def subplots(rows: int, columns: int) -> tuple[Figure, Any]:
    """A figure and its axes, always a (rows, columns) array."""
    figure = Figure(figsize=(1 + 5 * columns, 1 + 3 * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def say(text: str) -> None:
    """Print a line at once, so that a long run is seen to be alive."""
    print(text, flush=True)
