"""A COCO file without its faults; the original is read only.

What can be mended for certain is mended; what cannot is left out. The lists are written anew, and
images stay where they are.
"""

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from mmdet_agent.data.boxes import is_whole
from mmdet_agent.data.coco import Context, annotation_faults, has_id
from mmdet_agent.data.mend import mend
from mmengine_agent.data.check import Place
from mmengine_agent.data.faults import KINDS, Findings
from mmengine_agent.data.new_folder import require_some
from mmengine_agent.errors import UserError

_LOST_IMAGES = ("keys", "path", "missing", "unreadable", "truncated", "format", "size")


def write_coco(
    place: Place, content: dict[str, Any] | None, findings: Findings, folder: Path
) -> str:
    """Write the cleaned annotation file into a folder; what was kept, in one line."""
    if content is None:
        raise UserError(f"--fix: {place.ann} is no COCO file; there is nothing to clean")
    good = cleaned(content, findings)
    require_some(good["images"], place.name)
    path = folder / place.ann.name
    path.write_text(json.dumps(good) + "\n")
    kept = (
        f"{len(good[name])} of {len(content[name])} {name}"
        for name in ("images", "annotations", "categories")
    )
    return f"{path.name}: {', '.join(kept)}"


def cleaned(content: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """A COCO file's content without its faults; ``content`` stays as it is."""
    images, image_ids = _kept_images(content["images"], findings)
    categories, category_ids = _kept_categories(content["categories"], findings)
    new = {**content, "images": images, "categories": categories, "annotations": []}
    context = Context.of(new)
    unused = 1 + max((n["id"] for n in content["annotations"] if has_id(n)), default=0)
    for note in content["annotations"]:
        if not isinstance(note, dict):
            continue
        moved = {
            **note,
            "image_id": _moved(image_ids, note.get("image_id")),
            "category_id": _moved(category_ids, note.get("category_id")),
        }
        if not has_id(note) or note["id"] in context.ids:
            moved["id"], unused = unused, unused + 1
        moved = mend(moved, context.sizes.get(moved["image_id"]))
        if not any(KINDS[fault.kind].fails for fault in annotation_faults(0, moved, context)):
            new["annotations"].append(moved)
    return new


def _kept_images(entries: list[Any], findings: Findings) -> tuple[list[Any], dict[Any, Any]]:
    """The images to keep, and the ids that became others: of one file, the first entry's."""
    lost = findings.at(*(f"image-{name}" for name in _LOST_IMAGES))
    lost |= findings.at("image-file-twice") | _ambiguous(
        entries, findings.at("image-id-twice"), "file_name"
    )
    kept = [entry for index, entry in enumerate(entries) if index not in lost]
    first = {os.path.normpath(entry["file_name"]): entry["id"] for entry in kept}
    twice = (entries[int(index)] for index in findings.at("image-file-twice"))
    moved = {entry["id"]: first.get(os.path.normpath(entry["file_name"])) for entry in twice}
    return kept, moved


def _kept_categories(entries: list[Any], findings: Findings) -> tuple[list[Any], dict[Any, Any]]:
    """The categories to keep, and the ids that became others: of one name, the first entry's."""
    twice = findings.at("category-name-twice")
    lost = twice | findings.at("category-keys")
    lost |= _ambiguous(entries, findings.at("category-id-twice"), "name")
    kept = [entry for index, entry in enumerate(entries) if index not in lost]
    first = {entry["name"]: entry["id"] for entry in kept}
    moved = {entries[int(i)]["id"]: first.get(entries[int(i)]["name"]) for i in twice}
    return kept, moved


def _ambiguous(entries: list[Any], again: set[int | str], key: str) -> set[int | str]:
    """Entries that share an id: the later ones if they say the same, all if they do not."""
    said: dict[int, set[str]] = defaultdict(set)
    for entry in filter(has_id, entries):
        said[entry["id"]].add(str(entry.get(key)))
    unclear = {number for number, words in said.items() if len(words) > 1}
    return again | {
        index for index, entry in enumerate(entries) if has_id(entry) and entry["id"] in unclear
    }


def _moved(ids: dict[Any, Any], number: Any) -> Any:
    return ids.get(number, number) if is_whole(number) else None
