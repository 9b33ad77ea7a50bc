"""The report: one HTML file that fetches nothing.

Everything that comes from configs, names and files is escaped by jinja; should a name slip through
one day, the page's own policy lets no script run but the one whose digest it names.
"""

import base64
import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mmengine_agent.errors import UserError
from mmengine_agent.files import write_whole
from mmengine_agent.report import charts
from mmengine_agent.report.record import BACKGROUND
from mmengine_agent.report.workdir import WorkDir, read_work_dir

_HERE = Path(__file__).parent
_TABLE_LIMIT = 26  # classes of a confusion matrix that are readable as a table
_TOP = 10  # confusions that are named
_MATRIX = "Confusion matrix"
_NONE = "\u2013"  # a dash
_TOTALS = ("objects", "% of pixels")  # columns with a sum rather than a mean


def render(work: WorkDir) -> str:
    """The page (HTML) of a work directory."""
    style, script = (Markup((_HERE / name).read_text()) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    page = environment.get_template("page.html")
    trained = any("loss" in line for line in work.lines)
    return page.render(
        work=work,
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
        style=style,
        script=script,
        digest=digest,
        curves=charts.curves(work.lines) if trained else [],
        config_text=work.config.read_text(errors="replace") if work.config else "",
        environment=environment_rows(work.environment),
        metrics=metric_rows(work.metrics.get("metrics", {})),
        tested=tested(work),
        **(_of_evaluation(work.evaluation) if work.evaluation else {"evaluation": None}),
    )


def write_report(work_dir: Path, out: Path) -> None:
    """Write the page of a work directory.

    Raises:
        UserError: if the work directory cannot be read, or the file not be written.
    """
    page = render(read_work_dir(work_dir))
    try:
        write_whole(out, page)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; --out FILE.html") from error
    print(f"report: {out} ({len(page.encode()) / 1e6:.1f} MB)")


def number(value: float | None, digits: int = 4) -> str:
    """A number as the page shows it; a dash for none."""
    if value is None or value != value:
        return _NONE
    return str(value) if isinstance(value, int) else f"{value:.{digits}f}"


def metric_rows(metrics: dict[str, float | None]) -> list[tuple[str, str]]:
    """Names and numbers of metrics.json; COCO's -1 stands for none."""
    rows = []
    for name, value in metrics.items():
        none = value is None or value == -1 or value != value
        rows.append((name, _NONE if none else f"{round(float(value or 0), 4):g}"))
    return rows


def environment_rows(text: str) -> list[tuple[str, str]]:
    """Names and values of mmengine's list, but for the page of compiler flags."""
    pairs = [line.strip().partition(": ") for line in text.splitlines() if line.startswith("    ")]
    return [(name, value) for name, colon, value in pairs if colon and "compiling" not in name]


def tested(work: WorkDir) -> dict[str, Any]:
    """What the last test was of; ``other`` if its record is of another test than its metrics."""
    facts, record = work.metrics or work.evaluation, work.evaluation
    pair = [(each.get("config"), each.get("checkpoint")) for each in (work.metrics, record)]
    return {
        "checkpoint": facts.get("checkpoint", ""),
        "seconds": work.metrics.get("seconds"),
        "images": record.get("images"),
        "other": bool(work.metrics and record) and pair[0] != pair[1],
    }


def _of_evaluation(evaluation: dict[str, Any]) -> dict[str, Any]:
    table = evaluation["table"]
    return {
        "evaluation": evaluation,
        "means": means(table),
        "bars": bars(evaluation["classes"], table),
        "precision": _precision_charts(evaluation),
        **_confusion(evaluation["confusion"], evaluation["task"] == "detection"),
    }


def means(table: dict[str, Any]) -> list[float | None]:
    """The last row of the table of classes: sums of counts, means of scores."""
    found = []
    for name, column in zip(table["columns"], zip(*table["rows"], strict=True), strict=True):
        known = [value for value in column if value is not None]
        total = sum(known)
        found.append(total if name in _TOTALS else total / len(known) if known else None)
    return found


def bars(classes: list[str], table: dict[str, Any]) -> list[tuple[str, float]]:
    """Classes and their IoU in %, the greatest first; empty without IoU."""
    if "IoU" not in table["columns"]:
        return []
    at = table["columns"].index("IoU")
    pairs = [(name, row[at]) for name, row in zip(classes, table["rows"], strict=True)]
    return sorted(((n, v) for n, v in pairs if v is not None), key=lambda pair: -pair[1])


def _precision_charts(evaluation: dict[str, Any]) -> list[charts.Chart]:
    found = []
    for kind, lines in evaluation.get("curves", {}).get("precision", {}).items():
        named = dict(zip(evaluation["classes"], lines, strict=True))
        shown = charts.precision_recall(evaluation["curves"]["recall"], named)
        if shown:
            title = f"{kind.capitalize()}, IoU {evaluation['settings']['iou']:g}"
            axes: dict[str, Any] = {"y_label": "precision", "floor": 0, "ceiling": 1.02}
            found.append(charts.draw(title, "recall", shown, **axes))
    return found


def _confusion(confusion: dict[str, Any], whole: bool) -> dict[str, Any]:
    """The matrix as a table of counts and shares, or as a chart if it is large.

    ``whole``: counts are of objects, not of pixels.
    """
    labels, counts = confusion["labels"], np.array(confusion["counts"])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    named = [
        _describe(labels[i], labels[j], int(counts[i, j]), float(shares[i, j]), whole)
        for i, j in _largest(counts)
    ]
    if len(labels) > _TABLE_LIMIT:
        return {"matrix": [], "heat_map": charts.heat_map(_MATRIX, shares), "confused": named}
    cells = (zip(*row, strict=True) for row in zip(counts.tolist(), shares.tolist(), strict=True))
    return {"matrix": [*zip(labels, map(list, cells), strict=True)], "confused": named}


def _largest(counts: np.ndarray) -> list[tuple[int, int]]:
    """Row and column of the greatest counts off the diagonal."""
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_TOP]
    pairs = zip(*np.unravel_index(order, counts.shape), strict=True)
    return [(int(i), int(j)) for i, j in pairs if wrong[i, j]]


def _describe(truth: str, found: str, count: int, share: float, whole: bool) -> str:
    """A confusion as text; ``whole``: of objects, whose last class is background."""
    if not whole:
        return f"{truth} taken for {found}: {count} pixels, {share:.1%} of {truth}"
    if truth == BACKGROUND:
        return f"{found} where no object is: {count}"
    event = f"{truth} missed" if found == BACKGROUND else f"{truth} taken for {found}"
    return f"{event}: {count}, {share:.1%} of {truth}"
