"""A copy of a set without its faults; the original is read only.

What can be mended for certain is mended; what cannot is left out. Of a COCO file the lists are
written anew, and images stay where they are; of ADE20K-like folders the good pairs are linked.
"""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine_agent.errors import UserError
from mmseg_agent.data.label_maps import main_suffix
from mmengine_agent.data.check import AdeSet, CocoSet
from mmdet_agent.data.coco import Context, annotation_faults, is_whole
from mmengine_agent.data.faults import FAULT, KINDS, Findings
from mmdet_agent.data.mend import mend

_LOST_IMAGES = ("keys", "path", "missing", "unreadable", "truncated", "format", "size")


def is_free(folder: Path) -> bool:
    """Whether a folder is not there, or empty."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its name, new or empty, when all is written."""
    final = folder.resolve()
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=f".{final.name}.") as work:
        new = Path(work, "new")
        new.mkdir()
        yield new
        new.rename(final)


def write_coco(found: CocoSet, folder: Path) -> str:
    """Write the cleaned annotation file into a folder; returns what was done, in words."""
    if found.content is None:
        raise UserError(f"--fix: {found.place.ann} is no COCO file; there is nothing to clean")
    content = cleaned(found.content, found.findings)
    _require_some(content["images"], found.place.name)
    path = folder / found.place.ann.name
    path.write_text(json.dumps(content) + "\n")
    kept = (
        f"{len(content[name])} of {len(found.content[name])} {name}"
        for name in ("images", "annotations", "categories")
    )
    return f"{path.name}: {', '.join(kept)}"


def link_pairs(found: AdeSet, folder: Path) -> str:
    """Link the good pairs below a folder; returns what was done, in words.

    Links of images get the ending that most images have: OpenCV reads what is in a file, whatever
    its ending.
    """
    bad = found.findings.at(*found.findings.kinds(FAULT))
    good = [pair for pair in found.pairs if pair.name not in bad]
    _require_some(good, found.place.name)
    ending = main_suffix([pair.image for pair in found.pairs])
    for pair in good:
        _link(folder / "images" / found.place.name / f"{pair.name}{ending}", pair.image)
        _link(folder / "annotations" / found.place.name / f"{pair.name}.png", pair.label)
    return f"{found.place.name}: {len(good)} of {len(found.pairs)} pairs"


def cleaned(content: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """A COCO file's content without its faults; ``content`` stays as it is."""
    images, image_ids = _kept_images(content["images"], findings)
    categories, category_ids = _kept_categories(content["categories"], findings)
    new = {**content, "images": images, "categories": categories, "annotations": []}
    context = Context.of(new)
    unused = 1 + max((n["id"] for n in content["annotations"] if _has_whole_id(n)), default=0)
    for note in content["annotations"]:
        if not isinstance(note, dict):
            continue
        moved = {
            **note,
            "image_id": _moved(image_ids, note.get("image_id")),
            "category_id": _moved(category_ids, note.get("category_id")),
        }
        if not _has_whole_id(note) or note["id"] in context.ids:
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
    for entry in filter(_has_whole_id, entries):
        said[entry["id"]].add(str(entry.get(key)))
    unclear = {number for number, words in said.items() if len(words) > 1}
    return again | {
        index
        for index, entry in enumerate(entries)
        if _has_whole_id(entry) and entry["id"] in unclear
    }


def _require_some(good: list[Any], name: str) -> None:
    if not good:
        raise UserError(f"--fix: nothing of {name} is without faults; nothing was written")


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(target.resolve())


def _moved(ids: dict[Any, Any], number: Any) -> Any:
    return ids.get(number, number) if is_whole(number) else None


def _has_whole_id(entry: Any) -> bool:
    return isinstance(entry, dict) and is_whole(entry.get("id"))
