"""Configs that a checkpoint carries as text, which mmengine runs as Python.

``Runner.resume`` runs ``meta.config``, and an Inferencer that is given weights alone runs the
config of the run that made them, so whoever wrote the file would run code here. What mmengine
itself writes is nested ``dict(...)`` and values: that is kept, and all else is dropped.
"""

import ast
import re
from typing import Any

_STATEMENTS = (ast.Module, ast.Assign, ast.Name, ast.Store, ast.Load)
_VALUES = (ast.List, ast.Tuple, ast.Set, ast.UnaryOp, ast.USub)
# a type with dots is looked up in any package, unless the first part is a scope of registries
_TYPE = re.compile(r"((mm\w+|agent_attention)\.)?\w+")


def drop_code(content: Any) -> None:
    """Drop the texts of a checkpoint that are more than data, in place."""
    meta, info = _inside(content, "meta"), _inside(content, "message_hub", "runtime_info")
    for holder, key in ((meta, "config"), (meta, "cfg"), (info, "cfg")):
        if key in holder and not is_data(holder[key]):
            del holder[key]


def is_data(text: Any) -> bool:
    """Whether a config says values alone, and names types as registries do."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False
    return all(map(_is_harmless, nodes))


def _is_harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args
    if isinstance(node, ast.keyword):
        return node.arg is not None and (node.arg != "type" or _is_type(node.value))
    if isinstance(node, ast.Dict):
        return all(map(_is_harmless_item, node.keys, node.values))
    if isinstance(node, ast.Constant):  # {{ }} is replaced before it is run
        return not isinstance(node.value, str) or "{{" not in node.value
    return isinstance(node, _STATEMENTS + _VALUES)


def _is_harmless_item(key: ast.expr | None, value: ast.expr) -> bool:
    return isinstance(key, ast.Constant) and (key.value != "type" or _is_type(value))


def _is_type(node: ast.expr) -> bool:
    named = node.value if isinstance(node, ast.Constant) else False
    return named is None or (isinstance(named, str) and _TYPE.fullmatch(named) is not None)


def _inside(content: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}
