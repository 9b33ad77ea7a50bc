"""What a work directory holds: configs, logs, curves, metrics and the record of the last test."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from mmengine.config import Config

from mmengine_agent.errors import UserError
from mmengine_agent.report.record import FILE, VERSION
from mmengine_agent.task import task_of

Line = dict[str, Any]  # of scalars.json
_ENVIRONMENT = re.compile(r"System environment:\n(.*?)\n-{20,}", re.DOTALL)
_HEAD = 1 << 17  # bytes of a log in which its environment is


@dataclass(frozen=True)
class WorkDir:
    """A work directory as the report needs it; what is not there is empty."""

    path: Path
    config: Path | None = None
    task: str = ""  # "detection" or "segmentation"
    environment: str = ""
    lines: list[Line] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)

    @property
    def train_command(self) -> str:
        """The command that makes the curves."""
        config = quote(str(self.config or "CONFIG"))
        return f"python tools/train.py {config} --work-dir {quote(str(self.path))}"

    @property
    def test_command(self) -> str:
        """The command that makes everything that testing leaves."""
        config, checkpoint = (
            quote(str(self.config or "CONFIG")),
            quote(self._newest() or "CHECKPOINT"),
        )
        return f"python tools/test.py {config} {checkpoint} --work-dir {quote(str(self.path))}"

    def _newest(self) -> str:
        """The newest checkpoint of the folder, as mmengine notes it or by its time."""
        note = self.path / "last_checkpoint"
        if note.is_file() and Path(noted := note.read_text().strip()).is_file():
            return noted
        found = sorted(self.path.glob("*.pth"), key=lambda path: path.stat().st_mtime)
        return str(found[-1]) if found else ""


def read_work_dir(path: Path) -> WorkDir:
    """Read a work directory.

    Raises:
        UserError: if it is none, or something in it cannot be read.
    """
    if not path.is_dir():
        raise UserError(f"there is no work directory {path} (from {Path.cwd()})")
    # mmengine's, <time>/<time>.log, and no other: a folder of work directories is none itself
    runs = sorted(log for log in path.glob("*/*.log") if log.stem == log.parent.name)
    config = find_config(path)
    files = [path / "metrics.json", path / FILE]
    if config is None and not runs and not any(file.exists() for file in files):
        inner = sorted(str(each.parent) for each in path.glob("*/*.py"))
        hint = f"; did you mean {', '.join(inner[:5])}?" if inner else ""
        raise UserError(
            f"{path} is no work directory: it has no config, no log and no metrics.json{hint}\n"
            "Training and testing make one: --work-dir of tools/train.py and tools/test.py"
        )
    metrics, evaluation = (_json(file) for file in files)
    if evaluation and evaluation.get("version") != VERSION:
        raise UserError(f"{files[1]} is of another version of this toolkit: test again")
    task = evaluation.get("task") or _task(config)
    return WorkDir(path, config, task, _environment(runs), history(path), metrics, evaluation)


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
    lines: list[Line] = []
    for run in sorted(path.glob("*/vis_data/scalars.json"), reverse=True):
        logged = _lines(run)
        if not any("loss" in line for line in logged):
            continue
        if lines:  # a resumed training repeats what the stopped one did after its checkpoint
            first = next(line["step"] for line in lines if "loss" in line)
            repeated = (i for i, e in enumerate(logged) if "loss" in e and e["step"] >= first)
            logged = logged[: next(repeated, None)]
        lines = logged + lines
        config = run.with_name("config.py")
        if not (config.is_file() and "resume = True" in config.read_text().splitlines()):
            break
    return lines


def _lines(path: Path) -> list[Line]:
    """Lines of scalars.json; a run that was killed leaves half a line."""
    found = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            found.append(line)
    return found


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): test again") from error
    return content


def _task(config: Path | None) -> str:
    if config is None:
        return ""
    try:  # without what it imports: nothing is built here
        return task_of(Config.fromfile(config, import_custom_modules=False)).name
    except Exception as error:  # a config is the user's own code, and may raise anything
        raise UserError(f"cannot read the config {config}: {error}") from error


def _environment(logs: list[Path]) -> str:
    """The machine and the versions as mmengine lists them, from the newest log that has them."""
    for log in reversed(logs):
        with log.open(encoding="utf-8", errors="replace") as file:
            found = _ENVIRONMENT.search(file.read(_HEAD))
        if found:
            return found[1]
    return ""
