"""The report: one HTML file that fetches nothing.

Everything that comes from configs, names and files is escaped by jinja; should a name slip through
one day, the page's own policy lets no script run but the one whose digest it names.
"""

import base64
import hashlib
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file
from mmengine_agent.report.charts import precision_charts, training_charts
from mmengine_agent.report.workdir import WorkDir, read_work_dir

_HERE = Path(__file__).parent
_TOP = 10  # confusions that are named


def render(work: WorkDir) -> str:
    """The page (HTML) of a work directory."""
    style, script = (Markup((_HERE / name).read_text()) for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(zip=zip, quote=lambda path: shlex.quote(str(path)))
    return environment.get_template("page.html").render(
        work=work,
        made=datetime.now().strftime("%Y-%m-%d %H:%M"),
        style=style,
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        curves=training_charts(work.lines),
        precision=precision_charts(work.evaluation) if "curves" in work.evaluation else [],
        mistakes=mistakes(work.evaluation["confusion"]) if work.evaluation else [],
    )


def write_report(work_dir: Path, out: Path) -> None:
    """Write the page of a work directory.

    Raises:
        UserError: if the work directory cannot be read, or the file not be written.
    """
    page = render(read_work_dir(work_dir))
    try:
        write_file(out, page)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; --out FILE.html") from error
    print(f"report: {out} ({len(page.encode()) / 1e6:.1f} MB)")


def mistakes(confusion: dict[str, Any]) -> list[tuple[str, str, int, float]]:
    """The most frequent confusions: truth, prediction, how often, and the share of the truth."""
    labels, counts = confusion["labels"], np.array(confusion["counts"])
    wrong = counts * (1 - np.eye(len(counts), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_TOP]
    rows, columns = np.unravel_index(order[wrong.ravel()[order] > 0], counts.shape)
    return [
        (labels[i], labels[j], int(counts[i, j]), counts[i, j] / counts[i].sum())
        for i, j in zip(rows, columns, strict=True)
    ]
