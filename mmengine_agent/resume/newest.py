"""Which checkpoint ``--resume`` takes: the newest of a work directory that is whole."""

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
    folder = Path(cfg.work_dir)
    hook = cfg.get("default_hooks", {}).get("checkpoint", {}) or {}
    out_dir = hook.get("out_dir")
    place = Path(out_dir, folder.name) if out_dir else folder
    files = [path for path in place.glob("*.pth") if not path.name.startswith("best_")]
    found = sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    named = _named_by(folder / POINTER)
    if named:
        found = [named, *(path for path in found if not path.samefile(named))]
    for path in found:
        problem = archive_damage(path)
        if problem is None:
            return path
        warn(f"skipped the checkpoint {path}: it is damaged ({problem})")
    if found:
        raise UserError(
            f"--resume: every checkpoint in {folder} is damaged, the newest is {found[0]}. "
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
