"""Which checkpoint ``--resume`` takes: the newest of a folder that is whole."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from agent_attention.openmmlab.errors import UserError
from agent_attention.openmmlab.survive.checkpoint_hook import INTERRUPTED


def newest_whole(cfg: Config, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint that a config's runs left; None if they left none.

    The time of the files decides, not the pointer ``last_checkpoint``: a run that was killed
    between the two has a checkpoint that is newer.

    Args:
        cfg: with its work directory.
        say: told the name of each damaged checkpoint that is skipped, and what is wrong with it.

    Raises:
        UserError: if there are checkpoints, and all are damaged.
    """
    found = sorted(_checkpoints(cfg), key=_age)
    for path in found:
        problem = damage(path)
        if problem is None:
            return path
        say(f"skipped the checkpoint {path}: it is damaged ({problem})")
    if found:
        raise UserError(
            f"--resume: every checkpoint in {found[0].parent} is damaged, the newest is "
            f"{found[0].name}. Name one of another folder (--resume PATH), or train anew without "
            "--resume"
        )
    return None


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, every byte of which is read; None if it is whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # a damaged archive can raise anything
        return " ".join(str(error).split()) or type(error).__name__
    return None if broken is None else f"the checksum of {broken} is wrong"


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
    digits = re.sub("[^0-9]", "", path.stem)
    return -path.stat().st_mtime_ns, -int(digits or 0)
