"""Short configs that inherit from others: only what differs is said."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmengine_agent.files import write_file

_WIDTH = 84  # of a line, without the key before it


def config_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """What a config that inherits from ``old`` must say to become ``new``; lists are said whole."""
    found: dict[str, Any] = {}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if before.keys() - value.keys() or before.get("type") != value.get("type"):
                found[key] = {"_delete_": True, **value}
            elif inner := config_changes(before, value):
                found[key] = inner
        elif isinstance(value, dict) and key in old:
            found[key] = {"_delete_": True, **value}
        elif key not in old or type(value) is not type(before) or value != before:
            found[key] = value
    return found


def write_inheriting(out: Path, base: str, old: Config, new: Config, head: str) -> None:
    """Write a config that inherits from the one called ``base``, and is ``new``.

    Args:
        out: its file.
        base: a path, or such as 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'.
        old: what is there.
        new: what it is to be.
        head: a comment, without '#'.
    """
    package, colons, inside = base.partition("::")
    if package == "mmseg":
        # mmengine looks 'mmseg::' up in one of the two distributions that install mmseg
        where = f'(\n    __import__("mmseg").__path__[0]\n    + "/.mim/configs/{inside}"\n)'
    else:
        where = spell(base if colons else os.path.relpath(base, out.parent))
    changes = config_changes(old.to_dict(), new.to_dict())
    lines = [f"{key} = {spell(value)}\n" for key, value in changes.items()]
    comment = "".join(f"# {line}\n" for line in head.splitlines())
    write_file(out, f"{comment}_base_ = {where}\n\n{''.join(lines)}")


def spell(value: Any, indent: int = 0) -> str:
    """A setting as Python, in one line if it has room."""
    if isinstance(value, dict):
        names = all(str(key).isidentifier() for key in value)
        begin, end = ("dict(", ")") if names else ("{", "}")
        keys = [f"{key}=" if names else f"{key!r}: " for key in value]
        items = [
            key + spell(each, indent + 4) for key, each in zip(keys, value.values(), strict=True)
        ]
    elif isinstance(value, list | tuple):
        begin, end = ("[", "]") if isinstance(value, list) else ("(", ")")
        items = [spell(each, indent + 4) for each in value]
    else:
        return json.dumps(value) if isinstance(value, str) and value.isascii() else repr(value)
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    line = f"{begin}{', '.join(items)}{comma}{end}"
    if "\n" not in line and len(line) + indent < _WIDTH:
        return line
    inner = "".join(f"{' ' * (indent + 4)}{each},\n" for each in items)
    return f"{begin}\n{inner}{' ' * indent}{end}"
