"""Which checkpoint ``--resume`` takes: the newest of a work directory that is whole."""

import re
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from agent_attention.weights.read import archive_damage
from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file

POINTER = "last_checkpoint"  # in a work directory: where mmengine looks for the newest one's name
INTERRUPTED = "interrupted.pth"


def newest_whole(cfg: Config, warn: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint that a config's runs left; None if they left none.

    That is the one that the pointer ``last_checkpoint`` names, wherever it is: it is written after
    each checkpoint, and the times of files jump with the clock. If it names none, or a damaged one,
    the time of the files decides.

    Args:
        cfg: with its work directory.
        warn: called for each damaged checkpoint that is skipped, with its name and what is wrong.

    Raises:
        UserError: if there are checkpoints, and all are damaged.
    """
    found = sorted(_checkpoints(cfg), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    named = _named_by(Path(cfg.work_dir, POINTER))
    if named is not None:
        found = [named, *(path for path in found if not path.samefile(named))]
    for path in found:
        problem = archive_damage(path)
        if problem is None:
            return path
        warn(f"skipped the checkpoint {path}: it is damaged ({problem})")
    if found:
        raise UserError(
            f"--resume: every checkpoint in {cfg.work_dir} is damaged, the newest is {found[0]}. "
            "Name one of another folder (--resume PATH), or train anew without --resume"
        )
    return None


def _named_by(pointer: Path) -> Path | None:
    """The file that a pointer names, also after its folder was moved; None if there is none."""
    try:
        named = Path(pointer.read_text().strip())
        places = [named, pointer.with_name(named.name)]
        return next((path for path in places if path.is_file()), None)
    except (OSError, ValueError):  # no pointer, no text, no name a file can have
        return None


def _checkpoints(cfg: Config) -> list[Path]:
    """All that a run can be resumed from; the best ones hold no optimizer."""
    hook = cfg.get("default_hooks", {}).get("checkpoint", {})
    folder = Path(cfg.work_dir)
    if hook.get("out_dir"):
        folder = Path(hook["out_dir"], folder.name)
    name = hook.get("filename_tmpl")
    names = [name] if name else ["epoch_{}.pth", "iter_{}.pth"]
    patterns = [re.escape(each).replace(r"\{\}", "[0-9]+") for each in [*names, INTERRUPTED]]
    wanted = re.compile("|".join(patterns))
    return [path for path in folder.glob("*") if path.is_file() and wanted.fullmatch(path.name)]


def point_at(work_dir: str | Path, checkpoint: str | None) -> None:
    """Have the pointer of a work directory name a checkpoint, or remove it.

    Raises:
        OSError: if it cannot be written.
    """
    pointer = Path(work_dir, POINTER)
    if checkpoint is None or "://" in checkpoint:
        pointer.unlink(missing_ok=True)
    else:
        write_file(pointer, checkpoint)
