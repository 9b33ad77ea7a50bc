"""What a flag sets in a config: written there, printed, and held against ``--cfg-options``."""

from collections.abc import Iterable, Mapping
from reprlib import repr
from typing import Any

from mmengine_agent.errors import UsageError


class Changes:
    """The places of a config that one flag decides, and what stood there before."""

    def __init__(self, flag: str) -> None:
        """``flag``: with its value, as it is printed."""
        self.flag = flag
        self.places: dict[str, tuple[Any, Any]] = {}  # by path: before, after

    def set(self, path: str, node: Any, value: Any) -> None:
        """Write a value; ``node`` holds the last key of ``path``. What is equal is noted too."""
        key = path.rpartition(".")[2]
        before = node.get(key)
        self.places[path] = (before, value)
        if before != value:
            node[key] = value

    def __str__(self) -> str:
        """One line: the flag, and each change with the first place that has it."""
        found: dict[str, list[str]] = {}
        for path, (before, after) in self.places.items():
            if before != after:
                key = path.rpartition(".")[2]
                found.setdefault(f"{key} {repr(before)} -> {repr(after)}", []).append(path)
        texts = [
            f"{paths[0].rpartition('.')[0]}.{text}"
            + (f" (and {len(paths) - 1} more like it)" if len(paths) > 1 else "")
            for text, paths in found.items()
        ]
        return f"{self.flag}: {'; '.join(texts) or 'is what the config says'}"


def require_one_answer(flag: str, paths: Iterable[str], options: Mapping[str, Any]) -> None:
    """Raise UsageError if ``--cfg-options`` sets one of the places that a flag sets."""
    for path in paths:
        for option, value in options.items():
            if path.startswith(f"{option}.") and value is None:
                continue  # the whole part is taken out
            if f"{path}.".startswith(f"{option}.") or option.startswith(f"{path}."):
                raise UsageError(
                    f"{flag} and --cfg-options {option} set the same thing ({path}): leave one out"
                )
