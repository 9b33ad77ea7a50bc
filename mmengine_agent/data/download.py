"""Downloads that go on where they stopped."""

import fcntl
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from mmengine_agent.errors import UserError

_BLOCK = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without an answer


def download(address: str, path: Path) -> None:
    """Download a file to ``path``, unless it is there.

    Until it is whole its name ends in ``.part``; a later call goes on from what is in that. The
    size is the server's; what is inside is for the archive's own checksums to say.

    Raises:
        UserError: if it cannot be had; the message says what to do.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with _alone(part):
        while not _go_on(address, part):
            time.sleep(1)  # the connection broke, and brought something
        part.rename(path)


def _go_on(address: str, part: Path) -> bool:
    """Load on; whether the file is whole. UserError if nothing came."""
    before = part.stat().st_size
    try:
        if _load_rest(address, part):
            return True
        raise ConnectionError("the connection ended early")
    except HTTPError as error:
        if error.code == 416:  # there is nothing after what is here already
            return _is_all_here(error, part)
        raise UserError(f"{address}: the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        if part.stat().st_size > before and not _is_full(error):
            return False
        reason = getattr(error, "reason", error)
        raise UserError(
            f"cannot download {address}: {reason}. Without network, get the file by other means, "
            f"put it at {part.with_suffix('')}, and run this again; a download that stopped goes "
            "on from where it was"
        ) from error


def _load_rest(address: str, part: Path) -> bool:
    have = part.stat().st_size
    headers = {"Range": f"bytes={have}-"} if have else {}
    with urlopen(Request(address, headers=headers), timeout=_TIMEOUT) as answer:
        if not _continues(answer, have):
            have = 0  # this server sends all or nothing
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        _require_space(part, (total or 0) - have)
        _save(answer, part, have, total)
    return total is None or part.stat().st_size == total


def _save(answer: Any, part: Path, have: int, total: int | None) -> None:
    scale = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    bar = tqdm(desc=part.stem, initial=have, total=total, **scale)
    with bar, part.open("r+b") as file:
        file.truncate(have)
        file.seek(have)
        while block := answer.read(_BLOCK):
            file.write(block)
            bar.update(len(block))


def _continues(answer: Any, have: int) -> bool:
    """Whether an answer starts at byte ``have``."""
    start = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return answer.status == 206 and start is not None and int(start[1]) == have


def _is_all_here(error: HTTPError, part: Path) -> bool:
    """Whether the server's size is that of the part; if not, the part is emptied."""
    size = re.match(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
    if size and int(size[1]) == part.stat().st_size:
        return True
    part.write_bytes(b"")  # of another file, or another version of it
    return False


def _require_space(part: Path, size: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size > free:
        raise UserError(
            f"{part.parent} has {free / 1e9:.1f} GB free, and {part.stem} needs {size / 1e9:.1f} "
            "more; free some, or keep archives elsewhere with --dest DIR"
        )


def _is_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) == 28  # no space left on device


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Hold the part, so that two processes do not write it together."""
    with part.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another process is downloading to {part}") from None
        try:
            yield
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()
