"""What a work directory holds: configs, logs, curves, metrics and the record of the last test."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine_agent.errors import UserError
from mmengine_agent.report.record import FILE, VERSION

Line = dict[str, Any]  # of scalars.json
_ENVIRONMENT = re.compile(r"System environment:\n(.*?)\n-{20,}", re.DOTALL)


@dataclass(frozen=True)
class WorkDir:
    """A work directory as the report needs it; what is not there is empty."""

    path: Path
    config: Path | None
    checkpoint: str  # the newest, as mmengine notes it
    environment: str  # the machine and the versions, as mmengine lists them
    lines: list[Line]  # as ``history`` gives them
    metrics: dict[str, Any]
    evaluation: dict[str, Any]


def read_work_dir(path: Path) -> WorkDir:
    """Read a work directory.

    Raises:
        UserError: if it is none, or something in it cannot be read.
    """
    if not path.is_dir():
        raise UserError(f"there is no work directory {path} (from {Path.cwd()})")
    # mmengine's, <time>/<time>.log, and no other: a folder of work directories is none itself
    logs = sorted(log for log in path.glob("*/*.log") if log.stem == log.parent.name)
    config, metrics, evaluation = find_config(path), path / "metrics.json", path / FILE
    if config is None and not logs and not metrics.exists() and not evaluation.exists():
        raise UserError(
            f"{path} is no work directory: it has no config, no log and no metrics.json. "
            "Training and testing make one: --work-dir of tools/train.py and tools/test.py"
        )
    record = _read_json(evaluation)
    if record and record.get("version") != VERSION:
        raise UserError(f"{evaluation} is of another version of this toolkit: test again")
    pointer = path / "last_checkpoint"
    newest = pointer.read_text().strip() if pointer.is_file() else ""
    found = (_ENVIRONMENT.search(log.read_text(errors="replace")) for log in reversed(logs))
    environment = next((each[1] for each in found if each), "")
    return WorkDir(path, config, newest, environment, history(path), _read_json(metrics), record)


def find_config(path: Path) -> Path | None:
    """The config in a work directory: the newest that is there, else that of the newest run."""
    found = sorted(path.glob("*.py"), key=lambda config: config.stat().st_mtime)
    found = found or sorted(path.glob("*/vis_data/config.py"))
    return found[-1] if found else None


def history(path: Path) -> list[Line]:
    """What the newest training logged, with the trainings that it resumed, in order.

    Lines of training have ``loss``, those of validation have the metrics; ``step`` counts
    iterations, and in the validation of a training by epochs the epochs.
    """
    lines: dict[tuple[bool, int], Line] = {}  # of equal ones the newest stays
    for run in sorted(path.glob("*/vis_data/scalars.json"), reverse=True):
        logged = _read_lines(run)
        if any("loss" in line for line in logged):
            lines = {("loss" in line, line["step"]): line for line in logged} | lines
            config = run.with_name("config.py")
            if not (config.is_file() and "resume = True" in config.read_text().splitlines()):
                break
    return [lines[key] for key in sorted(lines)]


def _read_lines(path: Path) -> list[Line]:
    """Lines of scalars.json; a run that was killed leaves half a line."""
    found = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}): test again") from error
