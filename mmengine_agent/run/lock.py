"""One training at a time in a work directory."""

import os
import socket
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from mmengine_agent.errors import UserError

LOCK = "training.lock"
_HELD: dict[Path, FileLock] = {}  # a lock ends with its object, or with the process


def lock_work_dir(folder: str | Path) -> None:
    """Keep a work directory for this process until it ends, however it ends; twice is once.

    Raises:
        UserError: if another process trains there.
    """
    path = Path(folder, LOCK).resolve()
    if path in _HELD:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = path.with_suffix(".owner")
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = owner.read_text().strip() if owner.is_file() else "not known"
        raise UserError(
            f"{folder}: another training writes there ({holder}); take another --work-dir, or wait "
            "for its end"
        ) from error
    except (OSError, NotImplementedError) as error:
        print(f"warning: {path}: this disk cannot lock ({error})", file=sys.stderr)
        return
    owner.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    _HELD[path] = lock
