"""A contact sheet: pictures with boxes, masks or labels drawn, those with faults first."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from mmdet_agent.data.boxes import box_faults
from mmengine_agent.data.check import AdeSet, CocoSet
from mmengine_agent.data.faults import FAULT, Findings
from mmdet_agent.data.masks import corners, mask_faults, polygon_fault, runs

Array = np.ndarray
_OF_ANNOTATIONS = ("annotation", "box", "polygon", "rle", "mask", "area", "iscrowd")
SUFFIXES = (".jpg", ".jpeg", ".png")
_WIDTH, _HEIGHT, _CAPTION, _COLUMNS, _ROWS = 360, 270, 22, 4, 3  # pixels, tiles
_RED, _GREY = (40, 40, 230), 96  # BGR
_FAR = 100_000  # pixels: beyond, OpenCV's numbers end


def write_sheet(path: Path, sets: list[CocoSet] | list[AdeSet]) -> None:
    """Draw up to 12 pictures of each set, side by side, into one file of ``SUFFIXES``."""
    tiles = [tile for found in sets for tile in _tiles(found)]
    if not tiles:
        return
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    rows = [np.hstack(tiles[at : at + _COLUMNS]) for at in range(0, len(tiles), _COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), np.vstack(rows))[1].tobytes())


def _tiles(found: CocoSet | AdeSet) -> list[Array]:
    return _coco_tiles(found) if isinstance(found, CocoSet) else _ade_tiles(found)


def _coco_tiles(found: CocoSet) -> list[Array]:
    if found.content is None:
        return []
    entries, notes = found.content["images"], found.content["annotations"]
    places = {_key(entry, "id"): index for index, entry in enumerate(entries)}
    by_image: dict[int, list[int]] = defaultdict(list)  # annotations of an image entry
    for number, note in enumerate(notes):
        by_image[places.get(_key(note, "image_id"), -1)].append(number)
    bad = _faulty(found.findings, _OF_ANNOTATIONS)
    lost, outside = _faulty(found.findings, ("image",)), found.findings.at("image-path")
    names = {_key(entry, "id"): str(_key(entry, "name")) for entry in found.content["categories"]}
    first = [index for index in range(len(entries)) if index in lost or bad & {*by_image[index]}]
    tiles = []
    for index in _chosen(first, len(entries)):
        name = str(_key(entries[index], "file_name"))
        picture = _read(found.place.images / ("" if index in outside else name))
        for number in by_image[index]:
            _draw(picture, notes[number], names, number in bad)
        tiles.append(_tile(picture, name, index in lost or bool(bad & {*by_image[index]})))
    return tiles


def _ade_tiles(found: AdeSet) -> list[Array]:
    bad = _faulty(found.findings, ("image", "label"))
    first = [index for index, pair in enumerate(found.pairs) if pair.name in bad]
    tiles = []
    for index in _chosen(first, len(found.pairs)):
        pair = found.pairs[index]
        picture, labels = _read(pair.image), _read_labels(pair.label)
        if labels is not None:
            height, width = picture.shape[:2]
            labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
            shown = (labels > 0) & (labels < 255)
            mixed = picture // 2 + _palette()[labels] // 2
            picture[shown] = mixed[shown]
        tiles.append(_tile(picture, pair.name, pair.name in bad))
    return tiles


def _chosen(first: list[int], total: int) -> list[int]:
    """Which pictures to show: the first ones with faults, then others, evenly spread."""
    room = _COLUMNS * _ROWS
    spread = np.linspace(0, max(total - 1, 0), min(total, room)).astype(int).tolist()
    return list(dict.fromkeys([*first[:room], *spread]))[: min(room, total)]


def _faulty(findings: Findings, parts: tuple[str, ...]) -> set[int | str]:
    return findings.at(*(k for k in findings.kinds(FAULT) if k.partition("-")[0] in parts))


def _read(path: Path) -> Array:
    """Pixels (H, W, 3) BGR, as training sees them; a grey area if there are none."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    return np.full((_HEIGHT, _WIDTH, 3), _GREY, np.uint8) if pixels is None else pixels


def _read_labels(path: Path) -> Array | None:
    """Labels (H, W) as mmseg reads them; None if that cannot be."""
    try:
        labels = np.asarray(Image.open(path))
    except Exception:  # Pillow's readers raise whatever a broken file leads to
        return None
    return labels.astype(np.uint8) if labels.ndim == 2 else None


def _draw(picture: Array, note: Any, names: dict[Any, str], bad: bool) -> None:
    """Draw what is drawable of an annotation; those with faults in red."""
    if not isinstance(note, dict):
        return
    number = _key(note, "category_id")
    colour = _RED if bad else tuple(_palette()[hash(number) % 255 + 1].tolist())
    thick = max(2, max(picture.shape[:2]) // 250)  # seen after shrinking
    _draw_mask(picture, note.get("segmentation"), colour, thick)
    box = note.get("bbox")
    if isinstance(box, list) and dict(box_faults(box, None)).keys() <= {"box-tiny"}:
        ends = np.array([*box[:2], box[0] + box[2], box[1] + box[3]])
        left, top, right, bottom = np.clip(ends, -_FAR, _FAR).astype(int).tolist()
        cv2.rectangle(picture, (left, top), (right, bottom), colour, thick)
        place, scale = (left + thick, max(top, 0) + 12 * thick), thick / 3.5
        for ink, width in (((0, 0, 0), 3 * thick), (colour, thick)):
            cv2.putText(picture, names.get(number, "?"), place, 0, scale, ink, width)


def _draw_mask(picture: Array, mask: Any, colour: tuple[int, ...], thick: int) -> None:
    height, width = picture.shape[:2]
    if isinstance(mask, list):
        good = [corners(each) for each in mask if not polygon_fault(each, None)]
        lines = [np.clip(each, -_FAR, _FAR).astype(np.int32) for each in good if each is not None]
        cv2.polylines(picture, lines, True, colour, thick)
    elif isinstance(mask, dict) and not dict(mask_faults(mask, (width, height))):
        plain = {"size": mask["size"], "counts": runs(mask["counts"])}
        inside = coco_mask.decode(coco_mask.frPyObjects(plain, height, width)).astype(bool)
        picture[inside] = picture[inside] // 2 + np.array(colour, np.uint8) // 2


def _tile(picture: Array, caption: str, bad: bool) -> Array:
    """A picture (H, W, 3) shrunk into a tile of one size, its name below, framed if faulty."""
    tile = np.full((_HEIGHT + _CAPTION, _WIDTH, 3), 255, np.uint8)
    height, width = picture.shape[:2]
    scale = min((_WIDTH - 8) / width, (_HEIGHT - 8) / height)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    tile[4 : 4 + size[1], 4 : 4 + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if bad:
        cv2.rectangle(tile, (1, 1), (size[0] + 6, size[1] + 6), _RED, 3)
    plain = caption.encode("ascii", "replace").decode()[-52:]
    cv2.putText(tile, plain, (4, _HEIGHT + 15), 0, 0.42, _RED if bad else (0, 0, 0), 1)
    return tile


def _palette() -> Array:
    """A colour (BGR) for each of 256 numbers; neighbours differ much in hue."""
    hues = (np.arange(256) * 110) % 180
    plain = np.stack([hues, np.full(256, 200), np.full(256, 255)], -1).astype(np.uint8)
    return cv2.cvtColor(plain[None], cv2.COLOR_HSV2BGR)[0]


def _key(entry: Any, key: str) -> Any:
    """A plain value of an entry, or None: entries may be anything."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int | str) else None
