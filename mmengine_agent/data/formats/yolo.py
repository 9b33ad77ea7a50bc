"""YOLO: a text file an image, with boxes or polygons in fractions of its sides."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from mmengine_agent.data.formats.records import (
    ALL,
    Broken,
    Notes,
    Picture,
    Shape,
    image_files,
    numbers,
    open_picture,
)
from mmengine_agent.data.images import IMAGES, Size
from mmengine_agent.errors import UserError

_SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}  # words of YOLO's tools
_NAMES = ("classes.txt", "obj.names", "labels/classes.txt")
_ROOM = 0.01  # by which a fraction may leave 0..1: tools round


def is_yolo(root: Path) -> bool:
    """Whether a folder has a YAML file with names, or label files."""
    images = (path for path in root.glob("*") if path.suffix.lower() in IMAGES)
    return bool(
        _settings(root)
        or (root / "obj.names").is_file()
        or next((root / "labels").rglob("*.txt"), None)
        or any(path.with_suffix(".txt").is_file() for path in islice(images, 3))
    )


def read_yolo(root: Path, notes: Notes, classes: Sequence[str]) -> tuple[Sequence[str], Any]:
    """Class names, in the order of their numbers, and an iterator over the images.

    Raises:
        UserError: if there are no names, or the images of a split are not there.
    """
    path, settings = _settings(root) or (root, {})
    names = list(classes) or _names(root, settings)
    if not names:
        raise UserError(f"{root}: no class names: a YAML file with names, classes.txt or --classes")
    images = _images(root, path, settings)
    if not images:
        raise UserError(f"{root}: no images of train, val or test")
    return names, _pictures(images, names, settings.get("kpt_shape"), notes)


def _settings(root: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """The YAML file of a set with its content; None if there is none with 'names'."""
    for path in [root] if root.is_file() else sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and "names" in content:
            return path, content
    return None


def _names(root: Path, settings: Mapping[str, Any]) -> list[str]:
    names = settings.get("names") or []
    if isinstance(names, dict):
        if names.keys() != {*range(len(names))}:
            raise UserError(f"{root}: the names' numbers are {[*names]}, not 0, 1, ...")
        names = [names[number] for number in range(len(names))]
    for file in [root / each for each in _NAMES]:
        if not names and file.is_file():
            names = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    return [str(name) for name in names]


def _images(root: Path, path: Path, settings: Mapping[str, Any]) -> dict[Path, list[str]]:
    """The splits of each image file."""
    base = path.parent if path.is_file() else root
    found: dict[Path, list[str]] = {}
    for word, split in _SPLITS.items():
        entries = settings.get(word) or []
        if not settings:  # the usual places
            usual = (f"images/{word}", f"{word}/images", f"{word}.txt")
            entries = [each for each in usual if (base / each).exists()]
        for entry in [entries] if isinstance(entries, str) else entries:
            inner = str(entry).removeprefix("../")  # of exports whose paths begin beside the set
            places = [base / str(settings.get("path") or "") / entry, base / entry, base / inner]
            place = next((each for each in places if each.exists()), None)
            if place is None:
                raise UserError(f"{path}: {word}: there is no {entry} (looked for {places[0]})")
            for file in _listed(place):
                found.setdefault(file, []).append(split)
    return found or {file: [*ALL] for file in image_files(base)}


def _listed(place: Path) -> list[Path]:
    """The images of a folder, or those that a text file lists."""
    if place.is_dir():
        return image_files(place)
    return [place.parent / line.strip() for line in place.read_text().splitlines() if line.strip()]


def _label_file(image: Path) -> Path:
    """Where an image's labels are: 'labels' in place of the last 'images' of its path."""
    parts = list(image.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    moved = Path(*parts)
    return moved if moved.is_file() else image.with_suffix(".txt")


def _pictures(
    images: dict[Path, list[str]], names: Sequence[str], points: Any, notes: Notes
) -> Iterator[Picture]:
    labels = {image: _label_file(image) for image in images}
    if not any(label.is_file() for label in labels.values()):
        raise UserError(f"no image has a label file; looked for {next(iter(labels.values()))}")
    for image, splits in images.items():
        with notes.at(image):
            picture, lines = open_picture(image, splits), []
            if labels[image].is_file():
                lines = labels[image].read_text(errors="replace").splitlines()
            else:
                notes.change("images without a label file: taken as images without objects")
            for number, line in enumerate(lines, 1):
                with notes.at(f"{labels[image]}:{number}"):
                    if line.strip():
                        picture.shapes.append(
                            _shape(line.split(), picture.size, names, points, notes)
                        )
            yield picture
    used = {*labels.values()}
    for folder in sorted({label.parent for label in used}):
        for path in sorted(folder.glob("*.txt")):
            if path not in used and path.stem not in (*_SPLITS, "classes"):
                notes.change("label files without an image: left out", path)


def _shape(fields: list[str], size: Size, names: Sequence[str], points: Any, notes: Notes) -> Shape:
    """The object of a line: class, then a box, or at least three corners."""
    label, *values = numbers(fields)
    if label != int(label) or not 0 <= label < len(names):
        raise Broken(f"class {fields[0]}, and names are of 0..{len(names) - 1}")
    if points:
        notes.change("keypoints: left out, their boxes are kept")
        values = values[:4]
    elif len(values) == 5:
        notes.change("scores of predictions: left out")
        values = values[:4]
    if len(values) < 4 or len(values) % 2:
        raise Broken(f"{len(fields)} numbers: neither a box (5) nor a polygon (7, 9, ...)")
    if min(values) < -_ROOM or max(values) > 1 + _ROOM:
        raise Broken(f"{min(values)} to {max(values)}: fractions of width and height are wanted")
    pixels = [round(value * size[i % 2], 3) for i, value in enumerate(values)]
    if len(pixels) > 4:
        return Shape(names[int(label)], polygons=[pixels])
    x, y, width, height = pixels
    if min(width, height) <= 0:
        raise Broken(f"a box without width or height: {' '.join(fields)}")
    return Shape(
        names[int(label)], [round(x - width / 2, 3), round(y - height / 2, 3), width, height]
    )
