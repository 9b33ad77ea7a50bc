"""Pascal VOC: an XML file an image, with boxes; lists of names are the splits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine_agent.data.formats.read_xml import read_xml
from mmengine_agent.data.formats.records import (
    ALL,
    Broken,
    LeftOut,
    Notes,
    Picture,
    Shape,
    box_of,
    find_image,
    numbers,
    open_picture,
)

_ATTRIBUTES = ("pose", "truncated", "occluded", "difficult")
_KNOWN = {"name", "bndbox", *_ATTRIBUTES}


def is_voc(root: Path) -> bool:
    """Whether a folder has an XML file of Pascal VOC's form."""
    for folder in annotation_folders(root):
        for path in sorted(folder.glob("*.xml"))[:1]:
            with path.open("rb") as file:
                return b"<annotation>" in file.read(4096).replace(b"<annotation ", b"<annotation>")
    return False


def read_voc(root: Path, notes: Notes, classes: Sequence[str]) -> tuple[Sequence[str], Any]:
    """Class names, none but those given, and an iterator over the images."""
    return classes, _pictures(root, notes)


def annotation_folders(root: Path) -> list[Path]:
    """``Annotations`` of a folder or of those in it (VOC2007, VOC2012), or the folder itself."""
    found = [each / "Annotations" for each in (root, *sorted(root.glob("*/")))]
    return [each for each in found if each.is_dir()] or [root]


def read_lists(folder: Path) -> dict[str, list[str]]:
    """The names of images by list; lists of one class have a second column and are left out."""
    lists: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*.txt")):
        lines = [line.split() for line in path.read_text(errors="replace").splitlines()]
        if all(len(line) <= 1 for line in lines):
            lists[path.stem] = [line[0] for line in lines if line]
    return lists


def _pictures(root: Path, notes: Notes) -> Iterator[Picture]:
    for folder in annotation_folders(root):
        base = folder if folder == root else folder.parent
        lists = read_lists(base / "ImageSets/Main")
        splits: dict[str, list[str]] = {}
        for split, names in lists.items():
            for name in names:
                splits.setdefault(name, []).append(split)
        paths = {path.stem: path for path in sorted(folder.glob("*.xml"))}
        for name in sorted(splits.keys() - paths.keys()):
            with notes.at(base / f"ImageSets/Main/{splits[name][0]}.txt"):
                raise Broken(f"{name}: there is no XML file of it")
        for name, path in paths.items():
            with notes.at(path):
                if lists and name not in splits:
                    raise LeftOut("images in no list of ImageSets/Main")
                folders = [base / "JPEGImages", base / "images", folder]
                yield _read(path, folders, splits.get(name, ALL), notes)


def _read(path: Path, folders: list[Path], splits: Sequence[str], notes: Notes) -> Picture:
    root = read_xml(path)
    width, height = numbers(root.findtext(f"size/{each}", "0") for each in ("width", "height"))
    image = find_image(folders, root.findtext("filename") or path.stem)
    if not image.is_file() or image.stem != path.stem:  # exporters leave old names in
        image = find_image(folders, path.stem)
    picture = open_picture(image, splits, (int(width), int(height)) if width and height else None)
    # the devkit's own boxes begin at pixel 1 and end with their last pixel; tools write corners
    first = int((root.findtext("source/database") or "").startswith("The VOC"))
    for node in root.iter("object"):
        with notes.at(f"{path}:{node.line}"):  # type: ignore[attr-defined]
            picture.shapes.append(_shape(node, first, notes))
    if root.findtext("segmented", "0").strip() == "1":
        notes.change("masks of SegmentationObject: left out")
    return picture


def _shape(node: Any, first: int, notes: Notes) -> Shape:
    name = (node.findtext("name") or "").strip()
    ends = [node.findtext(f"bndbox/{each}") for each in ("xmin", "ymin", "xmax", "ymax")]
    if not name or None in ends:
        raise Broken("an object without a name, or without xmin, ymin, xmax and ymax")
    left, top, right, bottom = numbers(ends)
    box = box_of(left - first, top - first, right, bottom)
    for tag in sorted({child.tag for child in node} - _KNOWN):
        notes.change(f"<{tag}> of objects: left out")
    texts = {tag: (node.findtext(tag) or "").strip() for tag in _ATTRIBUTES}
    attributes = {tag: int(t) if t.isdecimal() else t for tag, t in texts.items() if t}
    difficult = attributes.get("difficult", 0) != 0
    if difficult:
        notes.change("difficult objects: iscrowd 1, so neither learnt nor counted as missed")
    return Shape(name, box, crowd=difficult, attributes=attributes)
