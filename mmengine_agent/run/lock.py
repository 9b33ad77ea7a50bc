"""One training at a time in a work directory."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

from mmengine_agent.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

LOCK = "training.lock"
_HELD: list[Any] = []  # open files: a lock ends with its file, or with the process


def claim(folder: str | Path) -> None:
    """Keep a work directory for this process until it ends, however it ends.

    A POSIX lock: the workers of data loaders, which outlive a killed process by seconds, do not
    inherit it (those of the library ``filelock`` are inherited).

    Raises:
        UserError: if another process trains there.
    """
    if fcntl is None:
        return
    path = Path(folder, LOCK)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        raise UserError(
            f"{folder}: another training writes there ({file.read().strip()}); take another "
            "--work-dir, or wait for its end"
        ) from error
    except OSError as error:
        print(f"warning: {path}: this disk cannot lock ({error.strerror})", file=sys.stderr)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _HELD.append(file)
