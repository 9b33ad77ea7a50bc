"""File backends of mmengine: atomic writes, and files that are removed later."""

from pathlib import Path
from typing import Any

from mmengine.fileio import LocalBackend, register_backend

from mmengine_agent.files import write_file

WHOLE = "whole_file"


class WholeFileBackend(LocalBackend):
    """mmengine's local files, written atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_file(Path(filepath), obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        write_file(Path(filepath), obj.encode(encoding))


register_backend(WHOLE, WholeFileBackend, force=True)


class RemoveLater:
    """A file backend that only notes what is to be removed."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.noted: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.noted.append(path)

    rmtree = remove
