"""Atomic writes, and words for a full disk."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file next to ``path`` to write to, renamed to ``path`` when the block ends well.

    Its folder is made. A file that was there stays until then, and if the block fails nothing of
    the new one is left. The content is on the disk before the name is, so that not even a crash of
    the machine leaves a name with half a content.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)  # on a full disk it would take the last room
        raise
    with suppress(OSError):  # some file systems cannot flush a folder, and order names themselves
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file by ``atomic_write``.

    Raises:
        OSError: if it cannot be written; nothing of it is left.
    """
    with atomic_write(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into that takes its name, and the place of what has it, when all is there.

    If ``folder`` is a link, what it leads to is made or replaced.
    """
    final = folder.resolve()
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}.") as work:
        new = Path(work, "new")
        new.mkdir()
        yield new
        if final.exists():
            final.rename(Path(work, "old"))
        new.rename(final)


def disk_is_full(error: OSError) -> bool:
    """Whether a disk, or a user's share of it, had no room left."""
    return error.errno in _FULL


def describe_disk(path: Path) -> str:
    """The disk that holds a path, for a message: ``/data (3 MB free)``."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free // 2**20
    while not os.path.ismount(place):
        place = place.parent
    return f"{place} ({free} MB free)"
