"""Short configs that inherit from others: only what differs is said."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmengine_agent.config_names import locate_config
from mmengine_agent.files import write_file
from mmengine_agent.run.setup import read_config


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


def write_inheriting(out: Path, config: str, new: Config, head: str) -> None:
    """Write a config that inherits from another, and is ``new``.

    Args:
        out: its file.
        config: the other, by path, name, or such as 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'.
        new: what it is to be.
        head: a comment, without '#'.
    """
    base = config if "::" in config else str(locate_config(config).resolve())
    package, colons, inside = base.partition("::")
    if package == "mmseg":
        # mmengine looks 'mmseg::' up in one of the two distributions that install mmseg
        where = f'(\n    __import__("mmseg").__path__[0]\n    + "/.mim/configs/{inside}"\n)'
    else:
        where = repr(base if colons else os.path.relpath(base, out.resolve().parent))
    changes = config_changes(read_config(config).to_dict(), new.to_dict())
    comment = "".join(f"# {line}\n" for line in head.splitlines())
    write_file(out, f"{comment}_base_ = {where}\n\n{Config(changes).pretty_text}")
