"""Nothing lost: checkpoints that are whole, resuming that is exact, signals that save."""

import errno
import itertools
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from stop_hooks import add_hook, scramble
from tiny_runs import LAST, difference, make_data, tiny, toy, train
from torch.utils.data import BatchSampler, DataLoader

from mmengine_agent import files
from mmengine_agent.errors import UserError
from mmengine_agent.hooks.resume import ExactResumeHook
from mmengine_agent.resume.data_order import (
    Batch,
    EndlessBatches,
    PlacedBatches,
    placed,
)
from mmengine_agent.resume.newest import newest_whole
from mmengine_agent.resume.switch_on import make_resumable
from mmengine_agent.run.exit import RESUME_ME

TASKS = ("detection", "segmentation")


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A run that was killed leaves its handlers, where there is no process to end."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


# ---- files


class Killed(BaseException):
    """What SIGKILL is to a process: nothing runs after it, least of all a handler of errors."""


CALLS = ("fsync", "replace", "remove", "unlink")  # by which files get their content and names


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Have the n-th of those calls end in an error; the list holds the calls that were made."""

    def arm(count: int | None, error: BaseException, only: str | None = None) -> list[str]:
        made: list[str] = []

        def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if only in (None, name):
                    made.append(name)
                    if len(made) == count:
                        raise error
                return real(*args, **kwargs)

            return call

        monkeypatch.undo()
        for name in CALLS:
            monkeypatch.setattr(os, name, wrap(name, getattr(os, name)))
        return made

    yield arm
    monkeypatch.undo()


def test_a_file_is_whole_wherever_its_writing_is_killed(
    stop_at: Callable[..., list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    made = stop_at(None, Killed())
    files.write_whole(path, b"old")
    assert made == ["fsync", "replace", "fsync"]  # the content, the name, the name's folder
    for place in range(1, len(made) + 1):
        files.write_whole(path, b"old")
        stop_at(place, Killed())
        with pytest.raises(Killed):
            files.write_whole(path, b"new" * 1000)
        assert path.read_bytes() == (b"old" if place < 3 else b"new" * 1000)


def test_what_does_not_fit_leaves_nothing(
    stop_at: Callable[..., list[str]], tmp_path: Path
) -> None:
    stop_at(1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError):
        files.write_whole(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


# ---- checkpoints


@pytest.fixture(scope="module")
def toy_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The last checkpoints of uninterrupted toy runs, by epochs and by iterations."""
    found = {}
    for by_epoch in (True, False):
        folder = tmp_path_factory.mktemp("toy") / "run"
        train(toy(folder, by_epoch), seed=1)
        found[by_epoch] = folder / ("epoch_4.pth" if by_epoch else "iter_12.pth")
    return found


def resumed(cfg: Config) -> Path:
    """Go on from the newest checkpoint, of which none may be damaged, to the end."""
    scramble()
    said: list[str] = []
    newest = newest_whole(cfg, said.append)
    assert said == []
    pointer = Path(cfg.work_dir, "last_checkpoint")
    if pointer.exists():
        assert Path(pointer.read_text()).is_file()
    return Path(train(cfg, 1, newest).work_dir)


@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_run_survives_being_killed_at_any_step_of_a_save(
    by_epoch: bool,
    toy_weights: dict[bool, Path],
    stop_at: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    made = stop_at(None, Killed())
    train(toy(tmp_path / "whole", by_epoch), seed=1)
    assert len(made) >= 4 * 7  # four saves: two files of three calls, and a removal
    most_best = 0
    for place in range(1, len(made) + 1, 2 if by_epoch else 7):
        folder = tmp_path / f"killed{place}"
        stop_at(place, Killed())
        with pytest.raises(Killed):
            train(toy(folder, by_epoch), seed=1)
        best = list(folder.glob("best_*.pth"))
        assert best or not (folder / "epoch_2.pth").exists()  # mmengine removes it first
        most_best = max(most_best, len(best))
        stop_at(None, Killed())
        resumed(toy(folder, by_epoch))
        assert difference(folder / toy_weights[by_epoch].name, toy_weights[by_epoch]) is None
        last = [path.name for path in folder.glob("*_[0-9]*.pth") if "best" not in path.name]
        assert last == [toy_weights[by_epoch].name]  # max_keep_ckpts=1, whatever happened
        assert len(list(folder.glob("best_*.pth"))) == 1
        assert not list(folder.glob("*.part"))
    assert most_best == 2


def test_all_that_a_run_goes_on_from_comes_by_its_name_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    renamed, real = [], os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (renamed.append(Path(b).name), real(a, b)))
    cfg = add_hook(toy(tmp_path), "SendSignal", number=signal.SIGTERM, iteration=7)
    with pytest.raises(SystemExit):
        train(cfg, seed=1)
    there = {path.name for path in tmp_path.glob("*.pth")} | {"last_checkpoint"}
    assert len(there) == 4 and there <= set(renamed)  # an epoch, the best, and the interrupted


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_and_the_run_goes_on_later(
    code: int, toy_weights: dict[bool, Path], stop_at: Callable[..., list[str]], tmp_path: Path
) -> None:
    for place in range(1, 11):
        folder = tmp_path / f"full{place}"
        stop_at(place, OSError(code, os.strerror(code)), "replace")
        with pytest.raises(UserError) as caught:
            train(toy(folder), seed=1)
        disk = files.describe_disk(folder).partition(" (")[0]
        assert f"the disk {disk} (" in str(caught.value)
        assert "--resume" in str(caught.value)
        assert not list(folder.glob("*.part"))
        stop_at(None, Killed())
        resumed(toy(folder))
        assert difference(folder / "epoch_4.pth", toy_weights[True]) is None


def test_a_damaged_checkpoint_is_named_and_skipped(tmp_path: Path) -> None:
    cfg = toy(tmp_path, **{"default_hooks.checkpoint.max_keep_ckpts": 3})
    train(cfg, seed=1)
    said: list[str] = []
    assert newest_whole(cfg, said.append) == tmp_path / "epoch_4.pth"
    assert said == []

    newest, second = tmp_path / "epoch_4.pth", tmp_path / "epoch_3.pth"
    content = bytearray(newest.read_bytes())
    content[content.index(b"state_dict")] ^= 1  # one bit
    newest.write_bytes(content)
    assert newest_whole(cfg, said.append) == second
    assert str(newest) in said.pop() and not said

    os.truncate(second, second.stat().st_size // 2)
    os.utime(second, ns=(1, 1))
    assert newest_whole(cfg, said.append) == tmp_path / "epoch_2.pth"
    (tmp_path / "epoch_2.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        newest_whole(cfg, said.append)


def place(folder: Path, name: str, iteration: int, time: int) -> Path:
    """A whole checkpoint of an iteration, written at a time in seconds."""
    path = folder / name
    torch.save({"meta": {"iter": iteration}}, path)
    os.utime(path, (time, time))
    return path


def point(folder: Path, to: Path, time: int) -> None:
    pointer = folder / "last_checkpoint"
    pointer.write_text(str(to))
    os.utime(pointer, (time, time))


TIMES = list(itertools.product((1, 2, 3), repeat=3))


@pytest.mark.parametrize("kind", ["number", "interrupted"])
def test_the_newest_checkpoint_is_found_whatever_the_clock_said(kind: str, tmp_path: Path) -> None:
    """Of iterations 4, 5 and 8: written in this order, with the clock set at will."""
    names = ["iter_4.pth", "iter_5.pth" if kind == "number" else "interrupted.pth", "iter_8.pth"]
    cfg = Config({"work_dir": str(tmp_path)})
    for times in TIMES:
        paths = [
            place(tmp_path, name, int(at), time)
            for name, at, time in zip(names, "458", times, strict=True)
        ]
        for named, pointed in itertools.product(range(3), (0, 1, 2, 3, 4)):
            point(tmp_path, paths[named], pointed)
            # what was saved after the pointer, as far as can be told, and is further on
            later = [each for each in range(named + 1, 3) if times[each] > pointed]
            wanted = max(later, key=lambda each: (times[each], each), default=named)
            if kind == "interrupted" and later == [1, 2] and times[1] == times[2]:
                wanted = 2
            assert newest_whole(cfg, pytest.fail) == paths[wanted], (times, named, pointed)


def test_a_damaged_checkpoint_that_is_pointed_at_is_skipped(tmp_path: Path) -> None:
    cfg, said = Config({"work_dir": str(tmp_path)}), []
    older = place(tmp_path, "iter_4.pth", 4, time=9)
    newer = place(tmp_path, "iter_8.pth", 8, time=1)
    point(tmp_path, newer, time=1)
    assert newest_whole(cfg, said.append) == newer
    os.truncate(newer, 300)
    assert newest_whole(cfg, said.append) == older
    assert len(said) == 1 and str(newer) in said[0]


def test_one_killed_before_its_pointer_is_taken_only_if_whole(tmp_path: Path) -> None:
    cfg, said = Config({"work_dir": str(tmp_path)}), []
    older = place(tmp_path, "epoch_1.pth", 4, time=1)
    point(tmp_path, older, time=2)
    newer = place(tmp_path, "epoch_2.pth", 8, time=3)
    assert newest_whole(cfg, said.append) == newer
    os.truncate(newer, 300)
    os.utime(newer, (3, 3))
    assert newest_whole(cfg, said.append) == older
    assert len(said) == 1 and str(newer) in said[0]


def test_a_pointer_may_lead_elsewhere_or_nowhere(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    cfg = Config({"work_dir": str(folder)})
    assert newest_whole(cfg, pytest.fail) is None
    mine, theirs = (place(each, "iter_4.pth", 4, time=5) for each in (folder, other))
    point(folder, theirs, time=9)
    assert newest_whole(cfg, pytest.fail) == theirs
    theirs.unlink()  # or the folder was moved: a file of the name is here
    assert newest_whole(cfg, pytest.fail) == mine
    for text in (b"", b"gone.pth", b"\xff\xfe", b"a\0b", b"x" * 5000, str(folder).encode()):
        (folder / "last_checkpoint").write_bytes(text)
        assert newest_whole(cfg, pytest.fail) == mine


def test_the_pointer_names_what_a_run_goes_on_from(tmp_path: Path) -> None:
    pointer, seen = tmp_path / "run/last_checkpoint", []

    @HOOKS.register_module(force=True)
    class Look(Hook):
        def before_train_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
            seen.append(pointer.read_text() if pointer.exists() else None)

    def cfg() -> Config:
        keep = {"default_hooks.checkpoint.max_keep_ckpts": -1}
        return add_hook(toy(tmp_path / "run", **keep), "Look")

    pointer.parent.mkdir()
    pointer.write_text("of another run")
    train(cfg(), seed=1)
    assert seen[:3] == [None] * 3  # it begins anew, and has saved nothing yet
    early = tmp_path / "early.pth"
    shutil.copy(pointer.parent / "epoch_2.pth", early)
    seen.clear()
    train(cfg(), resume=early)
    assert seen[0] == str(early)


# ---- resuming


@pytest.fixture(scope="module", params=TASKS)
def reference(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """An uninterrupted run without workers, and its checkpoints in the middle and at an end."""
    task = request.param
    parent = tmp_path_factory.mktemp(task)
    data, folder = make_data(parent / "data"), parent / "run"
    cfg = tiny(task, data, folder, **{"default_hooks.checkpoint.max_keep_ckpts": -1})
    train(add_hook(cfg, "SaveInTheMiddle", after=3, into=str(parent / "middle.pth")), seed=1)
    end = folder / ("epoch_1.pth" if task == "detection" else "iter_4.pth")
    places = {"middle": parent / "middle.pth", "end": end}
    return {"task": task, "data": data, "last": folder / LAST[task], **places}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("place", ["middle", "end"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(
    reference: dict[str, Any], place: str, workers: int, tmp_path: Path
) -> None:
    scramble()
    cfg = tiny(reference["task"], reference["data"], tmp_path, workers)
    train(cfg, resume=reference[place])  # without a seed: it is the checkpoint's
    assert difference(tmp_path / LAST[reference["task"]], reference["last"]) is None


@pytest.mark.parametrize("by_epoch", [True, False])
@pytest.mark.parametrize("after", range(1, 12))
def test_resuming_after_any_iteration_is_exact(
    after: int, by_epoch: bool, toy_weights: dict[bool, Path], tmp_path: Path
) -> None:
    """Also after the last of an epoch and before a validation that is due."""
    cfg = add_hook(toy(tmp_path, by_epoch), "SendSignal", number=signal.SIGTERM, iteration=after)
    with pytest.raises(SystemExit) as caught:
        train(cfg, seed=1)
    assert caught.value.code == RESUME_ME
    assert Path((tmp_path / "last_checkpoint").read_text()) == tmp_path / "interrupted.pth"
    scramble()
    cfg = toy(tmp_path, by_epoch)
    runner = train(cfg, resume=newest_whole(cfg, pytest.fail))
    assert difference(tmp_path / toy_weights[by_epoch].name, toy_weights[by_epoch]) is None
    assert not (tmp_path / "interrupted.pth").exists()
    if not cfg.train_dataloader.num_workers:  # what was drawn before is not read again
        assert len(runner.train_dataloader.dataset.read) == 4 * (12 - after)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_validation_that_is_broken_off_is_done_again(
    by_epoch: bool, number: int, toy_weights: dict[bool, Path], tmp_path: Path
) -> None:
    cfg = add_hook(toy(tmp_path, by_epoch), "SendSignal", number=number, validation=True)
    cfg.custom_hooks.append({"type": "EMAHook"})
    with pytest.raises(SystemExit):
        train(cfg, seed=1)
    cfg = toy(tmp_path, by_epoch)
    cfg.custom_hooks.append({"type": "EMAHook"})
    train(cfg, resume=newest_whole(cfg, pytest.fail))

    cfg = toy(tmp_path / "whole", by_epoch)
    cfg.custom_hooks.append({"type": "EMAHook"})
    train(cfg, 1)
    name = toy_weights[by_epoch].name
    assert difference(tmp_path / name, tmp_path / "whole" / name) is None


def test_gradients_of_a_step_that_is_not_complete_are_kept(tmp_path: Path) -> None:
    settings = {"optim_wrapper.accumulative_counts": 5}
    train(toy(tmp_path / "whole", **settings), 1)
    cfg = add_hook(toy(tmp_path, **settings), "SendSignal", number=signal.SIGTERM, iteration=8)
    with pytest.raises(SystemExit):
        train(cfg, seed=1)
    cfg = toy(tmp_path / "on", log_level="WARNING", **settings)
    train(cfg, resume=newest_whole(toy(tmp_path), pytest.fail))
    assert difference(tmp_path / "on/epoch_4.pth", tmp_path / "whole/epoch_4.pth") is None
    (log,) = (tmp_path / "on").glob("*/*.log")  # mmengine would say that they are lost
    assert "gradient" not in log.read_text()


def test_early_stopping_counts_on(tmp_path: Path) -> None:
    stop = {"type": "EarlyStoppingHook", "monitor": "accuracy", "rule": "less", "patience": 2}
    stop["min_delta"] = 1e9  # the second score that is not better ends the run
    lengths = []
    for folder, signals in ((tmp_path / "whole", False), (tmp_path / "parts", True)):
        cfg = toy(folder, **{"train_cfg.max_epochs": 9})
        cfg.custom_hooks.append(stop)
        if signals:
            with pytest.raises(SystemExit):
                train(add_hook(cfg, "SendSignal", number=signal.SIGTERM, iteration=8), 1)
            cfg = toy(folder, **{"train_cfg.max_epochs": 9})
            cfg.custom_hooks.append(stop)
            lengths.append(train(cfg, resume=newest_whole(cfg, pytest.fail)).epoch)
        else:
            lengths.append(train(cfg, 1).epoch)
    assert lengths[0] == lengths[1] < 9


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmengine_agent.hooks.interrupt._PATIENCE", 0.0)
    cfg = add_hook(toy(tmp_path), "SendSignal", number=signal.SIGINT, iteration=2)
    with pytest.raises(KeyboardInterrupt):
        train(add_hook(cfg, "SendSignal", number=signal.SIGINT, iteration=2), 1)


def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(tmp_path: Path) -> None:
    """As Slurm sends it: a worker that dies of it would end the run before it could save."""
    program = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parent)]!r}
os.setpgrp()
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from stop_hooks import add_hook, scramble
from tiny_runs import toy, train
from pathlib import Path
@HOOKS.register_module()
class ToAll(Hook):
    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 4:
            sender = os.fork()  # another process, as with Slurm: workers obey the main one
            if not sender:
                os.killpg(0, signal.SIGTERM)
                os._exit(0)
            os.waitpid(sender, 0)
cfg = toy(Path({str(tmp_path)!r}), workers=2)
cfg.custom_hooks = [dict(type="ToAll"), *cfg.custom_hooks]
train(cfg, 1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert done.returncode == RESUME_ME, done.stderr[-3000:].decode()
    assert (tmp_path / "interrupted.pth").is_file()


def in_two_processes(folder: Path, **arguments: Any) -> list[int]:
    """Go on with, or begin, a toy run in two processes over gloo; their exit codes."""
    meeting = folder / f"meeting{len(list(folder.glob('meeting*')))}"
    folder.mkdir(exist_ok=True)
    children = []
    for rank in range(2):
        children.append(os.fork())
        if not children[-1]:
            os._exit(be_one_of_two(folder, meeting, rank, **arguments))
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def be_one_of_two(folder: Path, meeting: Path, rank: int, **arguments: Any) -> int:
    signal.alarm(240)  # processes that wait for each other for ever end so
    try:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
        )
        scramble()
        cfg = toy(folder / "run")
        cfg.launcher = "pytorch"
        cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}
        if arguments.pop("signal_to", None) == rank:
            add_hook(cfg, "SendSignal", number=signal.SIGTERM, iteration=3)
        train(cfg, resume=newest_whole(cfg, pytest.fail), **arguments)
    except SystemExit as done:
        return int(str(done.code))
    except BaseException:
        traceback.print_exc()
        return 70
    return 0


def test_two_processes_stop_together_and_go_on_exactly(tmp_path: Path) -> None:
    assert in_two_processes(tmp_path / "whole", seed=1) == [0, 0]
    assert in_two_processes(tmp_path / "parts", seed=1, signal_to=1) == [RESUME_ME] * 2
    assert (tmp_path / "parts/run/interrupted.pth").is_file()
    assert in_two_processes(tmp_path / "parts") == [0, 0]
    name = "run/epoch_4.pth"
    assert difference(tmp_path / "parts" / name, tmp_path / "whole" / name) is None


def validate_with_own_statistics(meeting: Path, rank: int) -> int:
    """One of two processes whose BN has other statistics: 0 if it validates with the first's."""
    signal.alarm(240)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
    )
    model = torch.nn.BatchNorm1d(3)
    model.running_mean.fill_(rank + 1)
    runner: Any = SimpleNamespace(model=model, world_size=2)
    hook = ExactResumeHook()
    hook.before_val(runner)
    within = model.running_mean.tolist()
    hook.after_val(runner)
    return int((within, model.running_mean.tolist()) != ([1.0] * 3, [rank + 1.0] * 3))


def test_all_processes_validate_what_is_saved(tmp_path: Path) -> None:
    """Without SyncBN each has its own statistics, and a checkpoint has those of the first."""
    children = []
    for rank in range(2):
        children.append(os.fork())
        if not children[-1]:
            code = 70
            try:
                code = validate_with_own_statistics(tmp_path / "meeting", rank)
            finally:
                os._exit(code)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]


def test_a_config_is_made_resumable_once(tmp_path: Path) -> None:
    cfg = toy(tmp_path)
    before = cfg.to_dict()
    make_resumable(cfg)
    assert cfg.to_dict() == before
    assert cfg.default_hooks.checkpoint.type == "SafeCheckpointHook"
    assert cfg.train_cfg.type == "ResumableEpochLoop"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"type": "SafeCheckpointHook"}),
        ({"default_hooks": {"timer": None}}, {"type": "SafeCheckpointHook"}),
        ({"default_hooks": {"checkpoint": None}}, None),
        ({"default_hooks": {"checkpoint": {"type": "Mine"}}}, {"type": "Mine"}),
    ],
)
def test_a_config_with_other_checkpoint_hooks(given: Any, wanted: Any) -> None:
    cfg = Config(given)
    make_resumable(cfg)
    assert cfg.default_hooks.checkpoint == wanted


# ---- the order of the data


def drawn(workers: int, index: int = 0, passes: int = 0) -> list[list[float]]:
    """What a loader gives in a pass that begins with batch ``index``."""
    batches = BatchSampler(range(10), 3, drop_last=False)
    loader = DataLoader(Noisy(), batch_sampler=batches, num_workers=workers, collate_fn=list)
    loader = placed(loader, seed=5, rank=0)
    loader.batch_sampler.start_at(index, passes, index)
    return list(loader)


class Noisy(torch.utils.data.Dataset):
    """Samples of three random numbers."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[float, ...]:
        return (index + random.random(), float(np.random.rand()), float(torch.rand(())))


def test_what_is_drawn_at_random_follows_from_the_place_alone() -> None:
    scramble()
    before = torch.rand(()), random.random(), np.random.rand()
    scramble()
    whole = drawn(0)
    assert (torch.rand(()), random.random(), np.random.rand()) == before
    assert len({value for batch in whole for sample in batch for value in sample}) == 30
    assert drawn(2) == whole
    assert drawn(2, 2) == drawn(0, 2) == whole[2:]
    assert drawn(0, 4) == []


def test_a_batch_travels_to_a_worker_with_its_seed() -> None:
    batch = pickle.loads(pickle.dumps(Batch([3, 1], (5, 0, 7))))
    assert (batch, batch.seed) == ([3, 1], (5, 0, 7))


def test_passes_over_the_data_are_counted_as_they_are_used() -> None:
    batches = BatchSampler(range(5), 2, drop_last=False)
    loader = placed(DataLoader(list(range(5)), batch_sampler=batches, collate_fn=list), 0, 0)
    endless = EndlessBatches(loader, owed=0)
    assert [next(endless) for _ in range(4)] == [[0, 1], [2, 3], [4], [0, 1]]
    assert [loader.batch_sampler.place_after(done) for done in (2, 3, 4)] == [
        (0, 2),
        (1, 0),
        (1, 1),
    ]


def test_many_passes_over_the_data_take_no_more_memory() -> None:
    batches = BatchSampler(range(2), 2, drop_last=False)
    placed_batches = PlacedBatches(batches, 0, 0)
    for done in range(5000):
        assert placed_batches.place_after(done) == (done, 0)
        list(placed_batches)
    assert placed_batches.passes == 5000 and len(placed_batches.starts) < 2500
