"""A new folder for a cleaned copy of a set: it gets its name when all of it is written."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine_agent.errors import UserError


def is_free(folder: Path) -> bool:
    """Whether a folder is not there, or empty."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name, new or empty, when all is written."""
    final = folder.resolve()
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}.") as work:
        new = Path(work, "new")
        new.mkdir()
        yield new
        new.rename(final)


def require_some(good: list[Any], name: str) -> None:
    """Raise UserError if nothing of a set called ``name`` is good."""
    if not good:
        raise UserError(f"--fix: nothing of {name} is without faults; nothing was written")
