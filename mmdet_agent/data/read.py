"""Reading a COCO annotation file: once, for all who ask for it one after the other."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmdet_agent.data.coco import entry_faults
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


def annotation_path(dataset: Any) -> Path:
    """Where the annotation file of a data set's config lies."""
    return Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")


def read_categories(path: Path) -> dict[str, int]:
    """The ids of the categories by name, in the file's order.

    Raises:
        UserError: if the file is no COCO annotation file, or a category lacks its id or name.
    """
    content, faults = read_coco(path)
    categories = content["categories"] if content else []
    faults = [*faults, *entry_faults("categories", categories)]
    broken = [each for each in faults if each.kind.startswith(("json", "category-keys"))]
    if broken:
        text = f"{broken[0].place}: {broken[0].message}".removeprefix(f"{path}: ")
        raise UserError(f"{path} is no COCO annotation file: {text}")
    return {entry["name"]: entry["id"] for entry in categories}


@lru_cache(maxsize=2)
def _read(path: Path, mtime: int, size: int) -> tuple[Content | None, list[Fault]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return None, [Fault("json-syntax", str(path), f"{type(error).__name__}: {error}")]
    lists = content if isinstance(content, dict) else {}
    absent = [name for name in LISTS if not isinstance(lists.get(name), list)]
    if absent:
        return None, [Fault("json-layout", str(path), f"{', '.join(absent)} missing or no list")]
    if not content["images"]:
        return content, [Fault("set-empty", str(path), "images is empty")]
    return content, []


forget_files = _read.cache_clear  # frees the memory of what ``read_coco`` keeps
