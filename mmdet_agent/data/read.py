"""Reading a COCO annotation file: once, for all who ask for it one after the other."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmdet_agent.data.coco import category_faults
from mmengine_agent.data.faults import Fault
from mmengine_agent.errors import UserError

LISTS = ("images", "annotations", "categories")
Content = dict[str, Any]


def read_coco(path: Path) -> tuple[Content | None, list[Fault]]:
    """The content of an annotation file, or None, and what is wrong with it as a whole.

    The last two files are kept while they stay as they are on the disk: ``forget_files`` frees the
    memory, of which large files take gigabytes. Callers do not change the content.
    """
    try:
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        return None, [Fault("json-syntax", str(path), str(error.strerror))]


def forget_files() -> None:
    """Free the memory of what ``read_coco`` keeps."""
    _read.cache_clear()


def read_categories(path: Path) -> dict[str, int]:
    """The ids of the categories by name, in the file's order.

    Raises:
        UserError: if the file is no COCO annotation file, or a category lacks its id or name.
    """
    content, faults = read_coco(path)
    if content is not None:
        faults = [f for f in category_faults(content["categories"]) if f.kind == "category-keys"]
    if faults:
        place = "" if faults[0].place == str(path) else f"{faults[0].place}: "
        raise UserError(f"{path} is no COCO annotation file: {place}{faults[0].message}")
    assert content is not None
    return {entry["name"]: entry["id"] for entry in content["categories"]}


@lru_cache(maxsize=2)
def _read(path: Path, mtime: int, size: int) -> tuple[Content | None, list[Fault]]:
    try:
        with _no_collection(), path.open(encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, RecursionError) as error:
        return None, [Fault("json-syntax", str(path), f"{type(error).__name__}: {error}")]
    if not isinstance(content, dict):
        return None, [Fault("json-layout", str(path), f"it is a {type(content).__name__}")]
    absent = [name for name in LISTS if not isinstance(content.get(name), list)]
    if absent:
        return None, [Fault("json-layout", str(path), f"{', '.join(absent)} missing or no list")]
    if not content["images"]:
        return content, [Fault("set-empty", str(path), "images is empty")]
    return content, []


@contextmanager
def _no_collection() -> Iterator[None]:
    """Python looks for garbage again and again while millions of objects are made: a third more."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
