"""A recipe in a folder of its own, and how tools are run there: see recipe_steps.py.

Tools run in processes of their own, and what they print is read. Signals come from outside, as a
scheduler would send them.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fork_server
from said import faults
from small import Cut, data_flags, read, write_config, write_weights

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"
SECONDS = 900  # that a step may take
WHOLE, STOPPED = "work_dirs/whole", "work_dirs/stopped"


class Broken(Exception):
    """A step that has not done what it should; the message says what."""


@dataclass(frozen=True)
class Case:
    """A recipe, and how it is run."""

    name: str
    recipe: Path
    flags: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    processes: int = 1
    cut: Cut = field(default_factory=Cut)


class Chain:
    """A case in a folder of its own."""

    def __init__(self, case: Case, folder: Path, data: Path) -> None:
        self.case, self.folder = case, folder
        self.problems: list[str] = []  # that stop no step
        self.config = folder / f"{case.recipe.stem}.py"
        write_config(case.recipe, self.config, case.cut)
        cfg = read(self.config)
        write_weights(cfg, folder)
        self.data_flags = data_flags(cfg, data)
        self.package: str = cfg.default_scope
        self.backbone: str = cfg.model.backbone.type
        by_epoch, epochs = "max_epochs" in cfg.train_cfg, case.cut.epochs
        self.first = "epoch_1.pth" if by_epoch else f"iter_{epochs}.pth"
        self.last = f"epoch_{epochs}.pth" if by_epoch else f"iter_{2 * epochs}.pth"
        folders = {"mmdet": "coco/val2017", "mmseg": "ade/images/validation"}
        self.images = data / folders[self.package]

    # ---- places

    @property
    def whole(self) -> Path:
        """The work directory of the run that is not stopped."""
        return self.folder / WHOLE

    @property
    def stopped(self) -> Path:
        """That of the run that is stopped."""
        return self.folder / STOPPED

    def result(self) -> list[str]:
        """Config and checkpoint of the resumed training, as a user gives them to tools."""
        return [f"{STOPPED}/{self.config.name}", f"{STOPPED}/{self.last}"]

    # ---- running

    def train(self, name: str, work_dir: str, *flags: str, **how: Any) -> None:
        """Train with the recipe's flags."""
        case = self.case
        arguments = [str(self.config), *self.data_flags, *case.flags, *flags]
        arguments += ["--work-dir", work_dir]
        arguments += ["--cfg-options", *case.options] if case.options else []
        if case.processes > 1:
            arguments[1:1] = [str(case.processes)]
            self.tool(name, TOOLS / "dist_train.sh", *arguments, **how)
        else:
            self.tool(name, TOOLS / "train.py", *arguments, **how)

    def tool(
        self,
        name: str,
        script: Path,
        *arguments: str,
        last: str | None,
        code: int = 0,
        stop: tuple[int, Callable[[], bool]] | None = None,
    ) -> str:
        """Run a tool to its end; what it printed on stdout. Lines that are not meant are noted.

        Args:
            name: of the files beside the work directory that keep what it printed.
            script: the tool, a Python file or a shell script.
            arguments: of the tool.
            last: a pattern found in the last line of stdout; None if it may be any.
            code: the exit code wanted.
            stop: a signal, and when to send it.

        Raises:
            Broken: if it ends with another code, or does not end.
        """
        out, err = self.folder / f"{name}.out", self.folder / f"{name}.err"
        with out.open("w") as stdout, err.open("w") as stderr:
            argv = [str(script), *arguments]
            quick = fork_server.PLAIN_CONFIGS if self.case.cut.narrow else fork_server.WHOLE_END
            process: Any = start(argv, {quick: "1"}, cwd=self.folder, stdout=stdout, stderr=stderr)
            try:
                if stop is not None:
                    send_when(process, *stop)
                ended = process.wait(timeout=SECONDS)
            except subprocess.TimeoutExpired as error:
                raise Broken(f"does not end; see {out}, {err}") from error
            finally:
                process.kill()
        printed, told = out.read_text(), err.read_text()
        if ended != code:
            raise Broken(f"exit code {ended} instead of {code}:\n{printed[-1500:]}{told[-3000:]}")
        if code == -signal.SIGKILL:  # workers that find their main process gone end with one
            told = told.partition("Traceback")[0]
        found = faults(printed, told, last)
        self.problems += [f"{name}, not meant: {line}" for line in found[:20]]
        return printed

    def scores(self, work_dir: Path) -> dict[str, float]:
        """Those of the last validation that a training logged."""
        found = lines(max(logs(work_dir)))
        return real_scores(next(line for line in reversed(found) if "loss" not in line))


def clean(folder: Path, everything: bool) -> None:
    """Remove a folder, or only its large files."""
    if everything:
        shutil.rmtree(folder)
    for path in folder.rglob("*.pth"):
        path.unlink()


def start(argv: Sequence[str], settings: dict[str, str], **places: Any) -> Any:
    """Start a Python file, or a shell script, as a process of its own."""
    known = {**os.environ, **fork_server.SETTINGS, **settings}
    known |= {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable}
    known.pop("PYTHONWARNINGS", None)
    if argv[0].endswith(".py"):
        return fork_server.start(argv, env=known, **places)
    return subprocess.Popen(["bash", *argv], env=known, stdin=subprocess.DEVNULL, **places)


def send_when(process: Any, number: int, due: Callable[[], bool]) -> None:
    """Send a process a signal as soon as it is due."""
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        if due():
            process.send_signal(number)
            return
        time.sleep(0.01)


def real_scores(line: dict[str, Any]) -> dict[str, float]:
    """The scores among what was logged, without times."""
    names = [key for key in line if "mAP" in key or key.endswith(("IoU", "Acc"))]
    return {name: line[name] for name in names}


def logs(work_dir: Path) -> list[Path]:
    """The files with what each iteration logged, one a run."""
    return [*work_dir.glob("*/vis_data/scalars.json")]


def lines(log: Path) -> list[dict[str, Any]]:
    """What one of those files has."""
    return list(map(json.loads, log.read_text().splitlines()))
