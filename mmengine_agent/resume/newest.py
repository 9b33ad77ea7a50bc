"""Which checkpoint ``--resume`` takes: the newest of a work directory that is whole."""

import re
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from agent_attention.weights.archive import archive_damage
from mmengine_agent.checkpoints import load_local
from mmengine_agent.errors import UserError
from mmengine_agent.files import write_whole

POINTER = "last_checkpoint"  # in a work directory: where mmengine looks for the newest one's name
INTERRUPTED = "interrupted.pth"
Say = Callable[[str], None]


def newest_whole(cfg: Config, say: Say) -> Path | None:
    """The newest whole checkpoint that a config's runs left; None if they left none.

    That is the one that the pointer ``last_checkpoint`` names, wherever it is, for the times of
    files jump with the clock. A run that was killed between a checkpoint and the pointer left one
    that is newer than the pointer and further on than the one it names: that one is taken. Without
    a pointer to a whole checkpoint, the time of the files decides.

    Args:
        cfg: with its work directory.
        say: told the name of each damaged checkpoint that is skipped, and what is wrong with it.

    Raises:
        UserError: if there are checkpoints, and all are damaged.
    """
    found, pointer = sorted(_checkpoints(cfg), key=_age), Path(cfg.work_dir, POINTER)
    named = _named_by(pointer)
    if named is not None:
        found = [path for path in found if not path.samefile(named)]
        if _is_whole(named, say):
            return _further_on(found, named, pointer, say) or named
    for path in found:
        if _is_whole(path, say):
            return path
    if found or named:
        raise UserError(
            f"--resume: every checkpoint in {cfg.work_dir} is damaged, the newest is "
            f"{named or found[0]}. Name one of another folder (--resume PATH), or train anew "
            "without --resume"
        )
    return None


def _is_whole(path: Path, say: Say) -> bool:
    problem = archive_damage(path)
    if problem is not None:
        say(f"skipped the checkpoint {path}: it is damaged ({problem})")
    return problem is None


def _named_by(pointer: Path) -> Path | None:
    """The file that a pointer names, also after its folder was moved; None if there is none."""
    try:
        named = Path(pointer.read_text().strip())
        places = [named, pointer.with_name(named.name)]
        return next((path for path in places if path.is_file()), None)
    except (OSError, ValueError):  # no pointer, no text, no name a file can have
        return None


def _further_on(found: list[Path], named: Path, pointer: Path, say: Say) -> Path | None:
    """The newest whole one that is newer than the pointer and further on than what it names."""
    for path in found:
        newer = path.stat().st_mtime_ns > pointer.stat().st_mtime_ns
        if newer and _is_whole(path, say) and _is_further_on(path, named):
            return path
    return None


def _is_further_on(path: Path, named: Path) -> bool:
    """By the numbers in names of one kind, else by the iterations in the files."""
    step, other = _step(path), _step(named)
    if step is None or other is None or _kind(path) != _kind(named):
        step, other = _iteration(path), _iteration(named)
    return step > other


def _step(path: Path) -> int | None:
    digits = re.findall("[0-9]+", path.stem)
    return int(digits[-1]) if digits else None


def _iteration(path: Path) -> int:
    return int(load_local(str(path)).get("meta", {}).get("iter", 0))


def _kind(path: Path) -> str:
    return re.sub("[0-9]+", "#", path.name)


def _checkpoints(cfg: Config) -> list[Path]:
    """All that a run can be resumed from; the best ones hold no optimizer."""
    hook = cfg.get("default_hooks", {}).get("checkpoint", {})
    folder = Path(cfg.work_dir)
    if hook.get("out_dir"):
        folder = Path(hook["out_dir"], folder.name)
    names = (
        [hook["filename_tmpl"]] if hook.get("filename_tmpl") else ["epoch_{}.pth", "iter_{}.pth"]
    )
    patterns = [re.escape(name).replace(r"\{\}", "[0-9]+") for name in names]
    pattern = re.compile("|".join([*patterns, re.escape(INTERRUPTED)]))
    return [path for path in folder.glob("*") if path.is_file() and pattern.fullmatch(path.name)]


def _age(path: Path) -> tuple[int, int]:
    """Sorts the newest first; of files of one time, as copies have, that of the later step."""
    return -path.stat().st_mtime_ns, -(_step(path) or 0)


def point_at(work_dir: str | Path, checkpoint: str | None) -> None:
    """Have the pointer of a work directory name a checkpoint, or remove it.

    Raises:
        OSError: if it cannot be written.
    """
    pointer = Path(work_dir, POINTER)
    if checkpoint is None or "://" in checkpoint:
        pointer.unlink(missing_ok=True)
    else:
        write_whole(pointer, checkpoint)
