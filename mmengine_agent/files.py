"""Files that are written whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, which takes its name when the block ends well.

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
    _flush_folder(path.parent)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file by ``whole_file``.

    Raises:
        OSError: if it cannot be written; nothing of it is left.
    """
    with whole_file(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


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


def _flush_folder(folder: Path) -> None:
    """Have the new name on the disk too; some file systems cannot, and order names themselves."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
