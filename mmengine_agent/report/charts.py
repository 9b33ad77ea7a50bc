"""Charts as SVG in an address (``data:``), so that nothing is fetched and no style leaks out."""

import base64
import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmengine_agent.report.workdir import Line

COLORS = ("#1d4ed8", "#c2410c", "#047857", "#7c3aed", "#b91c1c", "#0e7490", "#a16207", "#be185d")
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # names with $ are names
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#64748b",
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_NO_METRICS = {"data_time", "time", "step", "epoch", "iter", "memory", "lr", "base_lr"}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


class Chart(NamedTuple):
    """A chart and what it shows."""

    title: str
    source: str  # data: address

    @classmethod
    def of(cls, title: str, figure: Figure) -> "Chart":
        file = io.BytesIO()
        with warnings.catch_warnings():  # glyphs that matplotlib's font lacks, the browser's has
            warnings.filterwarnings("ignore", "Glyph", UserWarning)
            figure.savefig(file, format="svg", metadata=_NO_METADATA)
        source = b"<svg" + file.getvalue().partition(b"<svg")[2]  # no DOCTYPE with its address
        return cls(title, "data:image/svg+xml;base64," + base64.b64encode(source).decode())


class Curve(NamedTuple):
    """A line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    thick: bool = False


def curves(lines: list[Line]) -> list[Chart]:
    """Losses, learning rate and validation metrics of a training."""
    steps = [line for line in lines if "loss" in line]
    checks = [line for line in lines if "loss" not in line]
    by_epoch = any("epoch" in line for line in steps)
    losses = [name for name in _names(steps) if "loss" in name]
    charts = [draw("Training loss", "iteration", _curves(steps, losses, "loss"), floor=0)]
    if "lr" in _names(steps):
        charts.append(draw("Learning rate", "iteration", _curves(steps, ["lr"])))
    groups: dict[str, list[str]] = {}  # COCO's boxes and masks apart, mmseg's all together
    for name in _names(checks):
        groups.setdefault(re.sub(r"_?mAP.*", "", name) if "/" in name else "", []).append(name)
    for group, names in groups.items():
        shown = _curves(checks, names)
        if shown:
            title = f"Validation: {group}" if group else "Validation"
            charts.append(draw(title, "epoch" if by_epoch else "iteration", shown))
    return charts


def precision_recall(recall: list[float], lines: dict[str, list[float] | None]) -> list[Curve]:
    """A curve for each class that has objects, and their mean."""
    known = {name: line for name, line in lines.items() if line is not None}
    if not known:
        return []
    mean = np.mean([*known.values()], axis=0)
    each = [Curve(name, recall, line) for name, line in known.items()]
    return [*each, Curve("mean", recall, mean.tolist(), True)]


def draw(
    title: str,
    x_label: str,
    shown: list[Curve],
    y_label: str = "",
    floor: float | None = None,
    ceiling: float | None = None,
) -> Chart:
    """A line chart; a single point is a dot, and what stands out is thick and dark.

    With more lines than there are colours only the thick ones are named.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 3.0), layout="constrained")
        axes = figure.add_subplot()
        many = len(shown) > len(COLORS) + 1
        for i, curve in enumerate(shown):
            color = "#111827" if curve.thick else "#94a3b8" if many else COLORS[i % len(COLORS)]
            label = _short(curve.name) if curve.thick or not many else ""
            axes.plot(
                *(curve.x, curve.y),
                color=color,
                linewidth=2 if curve.thick else 0.6 if many else 1.3,
                marker="o" if len(curve.x) < 2 else "",
                markersize=4,
                label=f"\u200b{label}" if label else "",  # a leading _ would hide it
            )
        axes.set(xlabel=x_label, ylabel=y_label, ylim=(floor, ceiling))
        places = {x for curve in shown for x in curve.x}
        if len(places) == 1:
            axes.set_xticks([*places])
        elif x_label in ("epoch", "iteration"):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(shown) > 1 or shown[0].name not in ("lr",):
            axes.legend()
        return Chart.of(title, figure)


def heat_map(title: str, shares: np.ndarray) -> Chart:
    """A matrix (n, n) of 0 to 1 as squares, for more classes than a table has room for."""
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(6, 5), layout="constrained")
        axes = figure.add_subplot()
        squares = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        figure.colorbar(squares, label="share of the row")
        axes.set_xlabel("predicted (number of the class)")
        axes.set_ylabel("truth (number of the class)")
        return Chart.of(title, figure)


def _curves(lines: list[Line], names: list[str], thick: str = "") -> list[Curve]:
    """The numbers of some names; -1 is COCO's number for none."""
    found = []
    for name in names:
        points = [(line["step"], line[name]) for line in lines if _number(line.get(name))]
        points = [(x, y) for x, y in points if y >= 0]
        if points:
            x, y = zip(*points, strict=True)
            found.append(Curve(name, x, y, name == thick))
    return found


def _names(lines: list[Line]) -> list[str]:
    """Names of numbers in lines, in order; without ``lr`` of several groups and times."""
    names = dict.fromkeys(name for line in lines for name, value in line.items() if _number(value))
    training = any("loss" in line for line in lines)
    return [name for name in names if name not in _NO_METRICS or (training and name == "lr")]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"
