"""Nothing lost: atomic writes, checkpoints that survive kills and full disks, the newest one."""

import errno
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from stop_hooks import Killed, add_hook, scramble
from tiny_runs import difference, toy, train

from mmengine_agent import files
from mmengine_agent.errors import UserError
from mmengine_agent.resume.newest import newest_whole

pytest_plugins = ["run_fixtures"]
pytestmark = pytest.mark.usefixtures("signals")


# ---- files


def test_a_file_is_whole_wherever_its_writing_is_killed(
    stop_at: Callable[..., list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    made = stop_at(None, Killed())
    files.write_file(path, b"old")
    assert made == ["fsync", "replace", "fsync"]  # the content, the name, the name's folder
    for place in range(1, len(made) + 1):
        files.write_file(path, b"old")
        stop_at(place, Killed())
        with pytest.raises(Killed):
            files.write_file(path, b"new" * 1000)
        assert path.read_bytes() == (b"old" if place < 3 else b"new" * 1000)


def test_what_does_not_fit_leaves_nothing(
    stop_at: Callable[..., list[str]], tmp_path: Path
) -> None:
    stop_at(1, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError):
        files.write_file(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


# ---- checkpoints


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
    for place in range(1, len(made) + 1, 5 if by_epoch else 7):
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


@pytest.mark.parametrize(
    ("code", "places"), [(errno.ENOSPC, (1, 2, 5, 10)), (errno.EDQUOT, (4,))], ids=["disk", "quota"]
)
def test_a_full_disk_is_named_and_the_run_goes_on_later(
    code: int,
    places: tuple[int, ...],
    toy_weights: dict[bool, Path],
    stop_at: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    for place in places:
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


TIMES = list(itertools.product((1, 2), repeat=4))


@pytest.mark.parametrize("later", ["iter_5.pth", "interrupted.pth"])
def test_the_pointer_decides_whatever_the_clock_said(later: str, tmp_path: Path) -> None:
    cfg = Config({"work_dir": str(tmp_path)})
    for *times, pointed, named in TIMES:
        paths = [place(tmp_path, "iter_4.pth", 4, times[0]), place(tmp_path, later, 5, times[1])]
        point(tmp_path, paths[named - 1], pointed)
        assert newest_whole(cfg, pytest.fail) == paths[named - 1]


def test_a_damaged_checkpoint_that_is_pointed_at_is_skipped(tmp_path: Path) -> None:
    cfg, said = Config({"work_dir": str(tmp_path)}), []
    older = place(tmp_path, "iter_4.pth", 4, time=9)
    newer = place(tmp_path, "iter_8.pth", 8, time=1)
    point(tmp_path, newer, time=1)
    assert newest_whole(cfg, said.append) == newer
    os.truncate(newer, 300)
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
