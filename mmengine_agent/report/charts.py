"""Charts as SVG in an address (``data:``), so that nothing is fetched and no style leaks out."""

import base64
import io
import math
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmengine_agent.report.workdir import Line

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # names with $ are names
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "legend.frameon": False,
}
_NAMED = 10  # curves; matplotlib has as many colours
_NO_METRICS = ("data_time", "time", "step")

Chart = tuple[str, str]  # title, address of the picture
Curves = dict[str, Sequence[Sequence[float]]]  # x and y by name


def training_charts(lines: list[Line]) -> list[Chart]:
    """Losses, learning rate and validation metrics of a training."""
    steps = [line for line in lines if "loss" in line]
    if not steps:
        return []
    trained = curves(steps)
    losses = {name: curve for name, curve in trained.items() if "loss" in name}
    charts = [draw("Training loss", "iteration", losses, thick="loss")]
    if "lr" in trained:
        charts.append(draw("Learning rate", "iteration", {"lr": trained["lr"]}))
    groups: dict[str, Curves] = {}  # COCO's boxes and masks apart, mmseg's all together
    for name, curve in curves([line for line in lines if "loss" not in line]).items():
        if name not in _NO_METRICS:
            groups.setdefault(name.rpartition("_mAP")[0], {})[name] = curve
    x_label = "epoch" if "epoch" in trained else "iteration"
    for group, shown in groups.items():
        charts.append(draw(f"Validation: {group}" if group else "Validation", x_label, shown))
    return charts


def precision_charts(evaluation: dict[str, Any]) -> list[Chart]:
    """Precision over recall of each class that has objects, and their mean: boxes and masks."""
    charts = []
    for kind, lines in evaluation["curves"]["precision"].items():
        named = zip(evaluation["classes"], lines, strict=True)
        known = {name: line for name, line in named if line is not None}
        if known:
            known["mean of all"] = np.mean([*known.values()], axis=0).tolist()
            shown: Curves = {k: (evaluation["curves"]["recall"], line) for k, line in known.items()}
            title = f"{kind.capitalize()}, IoU {evaluation['settings']['iou']:g}"
            charts.append(draw(title, "recall", shown, "precision", thick="mean of all"))
    return charts


def curves(lines: list[Line]) -> Curves:
    """The numbers in lines of a log, over their steps; -1 is COCO's number for none."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        for name, value in line.items():
            if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
                found.setdefault(name, []).append((line["step"], value))
    return {name: list(zip(*points, strict=True)) for name, points in found.items()}


def draw(title: str, x_label: str, shown: Curves, y_label: str = "", thick: str = "") -> Chart:
    """A line chart; a single point is a dot, and the curve called ``thick`` is thick and dark.

    With more curves than there are colours only the thick one is named.
    """
    many = len(shown) > _NAMED
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 3.0), layout="constrained")
        axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
        for name, (x, y) in shown.items():
            style: dict[str, Any] = {"linewidth": 1.3}
            if name == thick:
                style = {"color": "#111827", "linewidth": 2}
            elif many:
                style = {"color": "#94a3b8", "linewidth": 0.6}
            # matplotlib would hide a name that begins with _
            label = "" if many and name != thick else f"\u200b{name[:24]}"
            dot = "o" if len(x) < 2 else ""
            axes.plot(x, y, linestyle="-", marker=dot, markersize=4, label=label, **style)
        axes.legend()
        if x_label != "recall":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if thick:
            axes.set_ylim(bottom=0)
        file = io.BytesIO()
        with warnings.catch_warnings():  # glyphs that matplotlib's font lacks, the browser's has
            warnings.filterwarnings("ignore", "Glyph", UserWarning)
            figure.savefig(file, format="svg")
    return title, "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
