"""What the classes that a config names take, and which words their code has."""

import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

PACKAGES = ("mmengine", "mmcv", "mmdet", "mmseg", "agent_attention", "mmengine_agent")


def find(registry: Registry, kind: Any, scope: str) -> Any:
    """The class or function of a ``type``, None if the registry does not know it."""
    if not isinstance(kind, str):
        return kind
    try:
        with registry.switch_scope_and_registry(scope) as own:
            return own.get(kind)
    except (KeyError, ImportError):
        return None


def default_of(kind: Any, scope: str, name: str) -> Any:
    """The default of an argument of a data set's type; None if there is none."""
    from mmengine.registry import DATASETS

    parameter = _parameters(find(DATASETS, kind, scope)).get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def arguments(kind: Any) -> tuple[set[str], bool]:
    """The names that a class or function takes, those of its parents if it hands on what it
    does not know, and whether these are all."""
    own = _parameters(kind)
    names, exact = _named(own), not _open(own)
    if exact or not inspect.isclass(kind):
        return names, exact
    for parent in kind.__mro__[1:]:
        if "__init__" in vars(parent):
            names |= _named(_parameters(parent))
            if not _open(_parameters(parent)):
                break
    return names, False


def module_words(kinds: list[Any]) -> set[str]:
    """The words of the modules in which classes, and what they inherit from, are written."""
    found: set[str] = set()
    for kind in kinds:
        for each in kind.__mro__ if inspect.isclass(kind) else (kind,):
            found |= _module_words(each.__module__)
    return found


@cache
def package_words() -> frozenset[str]:
    """The words of all code of OpenMMLab here: what is in none of it, nothing reads."""
    found: set[str] = set()
    for name in PACKAGES:
        try:
            folder = Path(str(import_module(name).__file__)).parent
        except ImportError:
            continue
        for path in folder.rglob("*.py"):
            if ".mim" not in path.parts:  # configs, which may have the same slip
                found |= _words(path)
    return frozenset(found)


@cache
def _module_words(name: str) -> frozenset[str]:
    path = getattr(sys.modules.get(name), "__file__", None)
    return _words(Path(path)) if path and path.endswith(".py") else frozenset()


def _words(path: Path) -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z_]\w*", path.read_text(errors="replace")))


def _parameters(kind: Any) -> dict[str, inspect.Parameter]:
    target = kind.__init__ if inspect.isclass(kind) else kind
    try:
        return dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):  # of C code, which tells nothing
        return {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}


def _named(parameters: dict[str, inspect.Parameter]) -> set[str]:
    loose = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name for name, each in parameters.items() if each.kind not in loose} - {"self"}


def _open(parameters: dict[str, inspect.Parameter]) -> bool:
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


def walk(node: Any) -> Iterator[Any]:
    """Every dict within a config."""
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list | tuple):
        for child in node:
            yield from walk(child)
