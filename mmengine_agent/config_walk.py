"""One walk over a config, for all who look for something in it."""

from collections.abc import Iterator
from typing import Any


def walk(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, dict) of each dict in a config, outer ones first; a list's items go by number.

    Args:
        node: a config, or a part of one.
        path: of that part, such as 'model'.
    """
    if isinstance(node, dict):
        yield path, node
        children = list(node.items())
    elif isinstance(node, list | tuple):
        children = list(enumerate(node))
    else:
        return
    for key, child in children:
        yield from walk(child, f"{path}.{key}" if path else str(key))


def type_name(node: Any) -> str:
    """The name of a dict's ``type``, a name or a class, without its scope; empty if it has none."""
    kind = node.get("type") or ""
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]
