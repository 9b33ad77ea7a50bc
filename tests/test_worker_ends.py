"""Trainings with worker processes, as users start them: how they end, and what they say then.

A published recipe at small size is trained by ``tools/train.py`` with two persistent workers for
each data loader.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fork_server
import pytest
from tiny_runs import make_data, tiny

from mmengine_agent.run.exit import RESUME_ME

ROOT = Path(__file__).parents[1]
TASK = "upernet-recipe"
LONG = 400  # iterations: more than a run does before it is stopped
SECONDS = 90


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("workers") / "data")


class Training:
    """A process of ``tools/train.py``, the first of a process group of its own."""

    def __init__(self, data: Path, folder: Path, length: int, *options: str) -> None:
        config = folder / "config.py"
        tiny(TASK, data, folder, 2, length).dump(config)
        flags = ["--work-dir", folder / "run", *(["--cfg-options", *options] if options else [])]
        command = [ROOT / "tests/own_group.py", ROOT / "tools/train.py", config, *flags]
        self.temp = Path(tempfile.mkdtemp())  # of a short name: sockets lie in it
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
        places = {"PYTHONPATH": paths, "TMPDIR": str(self.temp), fork_server.WHOLE_END: "1"}
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = fork_server.start(
                command,
                env={**os.environ, **fork_server.SETTINGS, **places},
                stdout=out,
                stderr=err,
            )
        self.folder = folder

    def said(self, name: str) -> str:
        return (self.folder / name).read_text()

    def wait_for_an_iteration(self) -> None:
        end = time.monotonic() + SECONDS
        while "Iter(train)" not in self.said("out"):
            assert self.process.poll() is None and time.monotonic() < end, self.said("err")
            time.sleep(0.05)

    def end(self) -> int:
        """Wait for it; its exit code."""
        try:
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()


def anyone_left(training: Training) -> bool:
    """Whether a process of its group, such as a worker, is still there."""
    try:
        os.killpg(training.process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def clean(training: Training) -> bool:
    """Whether it left no worker and no folder of one's connections."""
    left = list(training.temp.glob("pymp-*"))
    shutil.rmtree(training.temp)
    return not anyone_left(training) and not left


def to_process(training: Training, number: int) -> None:
    training.process.send_signal(number)


def to_group(training: Training, number: int) -> None:
    """As a terminal sends Ctrl-C, and Slurm its signals: to the workers, too."""
    os.killpg(training.process.pid, number)


@pytest.mark.parametrize("options", [(), ("train_dataloader.num_workers=0",)], ids=["all", "val"])
def test_a_finished_training_says_nothing(
    options: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    """Also where only the validation has workers."""
    without = ("train_dataloader.persistent_workers=False",) if options else ()
    training = Training(data, tmp_path, 8, *options, *without)
    assert (training.end(), training.said("err")) == (0, "")
    assert "Iter(val) [3/3]" in training.said("out")
    assert clean(training)


# to the workers both are new: one ends them, the other raises in them; to the process they are one
STOPS = [(to_process, signal.SIGTERM), (to_group, signal.SIGTERM), (to_group, signal.SIGINT)]


@pytest.mark.parametrize(("send", "number"), STOPS)
def test_a_stopped_training_says_in_its_log_how_to_go_on(
    send: Callable[[Training, int], None], number: signal.Signals, data: Path, tmp_path: Path
) -> None:
    training = Training(data, tmp_path, LONG)
    training.wait_for_an_iteration()
    send(training, number)
    assert (training.end(), training.said("err")) == (RESUME_ME, "")
    last = training.said("out").splitlines()[-1]
    assert f"stopped by {number.name} after iteration " in last
    assert last.endswith(
        f": saved {tmp_path}/run/interrupted.pth. Go on with --resume (exit code {RESUME_ME})"
    )
    assert clean(training)


def test_a_mistake_that_a_worker_finds_is_all_that_is_said(data: Path, tmp_path: Path) -> None:
    """An image that is cut off: found when it is read, while the workers are at work."""
    copy = shutil.copytree(data, tmp_path / "data")
    image = copy / "train/5.jpg"
    os.truncate(image, image.stat().st_size // 2)
    training = Training(copy, tmp_path, LONG)
    assert training.end() == 1
    said = training.said("err")
    assert said.startswith(f"error: cannot load {image}: truncated")
    assert "DataLoader" not in said and "Traceback" not in said and "Exception" not in said
    assert clean(training)
