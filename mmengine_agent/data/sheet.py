"""A contact sheet: pictures of sets with what is annotated drawn, those with faults first."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmengine_agent.data.check import CheckedSet
from mmengine_agent.data.faults import FAULT, Findings

Array = np.ndarray
SUFFIXES = (".jpg", ".jpeg", ".png")
RED = (40, 40, 230)  # BGR
_WIDTH, _HEIGHT, _CAPTION, _COLUMNS, _ROWS = 360, 270, 22, 4, 3  # pixels, tiles
_GREY = 96


def write_sheet(path: Path, sets: Sequence[CheckedSet]) -> None:
    """Draw up to 12 pictures of each set, side by side, into one file of ``SUFFIXES``."""
    tiles = [tile for found in sets for tile in found.tiles()]
    if not tiles:
        return
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    rows = [np.hstack(tiles[at : at + _COLUMNS]) for at in range(0, len(tiles), _COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix.lower(), np.vstack(rows))[1].tobytes())


def chosen(first: list[int], total: int) -> list[int]:
    """Which pictures to show: the first ones with faults, then others, evenly spread."""
    room = _COLUMNS * _ROWS
    spread = np.linspace(0, max(total - 1, 0), min(total, room)).astype(int).tolist()
    return list(dict.fromkeys([*first[:room], *spread]))[: min(room, total)]


def faulty(findings: Findings, parts: tuple[str, ...]) -> set[int | str]:
    return findings.at(*(k for k in findings.kinds(FAULT) if k.partition("-")[0] in parts))


def read(path: Path) -> Array:
    """Pixels (H, W, 3) BGR, as training sees them; a grey area if there are none."""
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    return np.full((_HEIGHT, _WIDTH, 3), _GREY, np.uint8) if pixels is None else pixels


def tile(picture: Array, caption: str, bad: bool) -> Array:
    """A picture (H, W, 3) shrunk into a tile of one size, its name below, framed if faulty."""
    tile = np.full((_HEIGHT + _CAPTION, _WIDTH, 3), 255, np.uint8)
    height, width = picture.shape[:2]
    scale = min((_WIDTH - 8) / width, (_HEIGHT - 8) / height)
    size = max(1, int(width * scale)), max(1, int(height * scale))
    tile[4 : 4 + size[1], 4 : 4 + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if bad:
        cv2.rectangle(tile, (1, 1), (size[0] + 6, size[1] + 6), RED, 3)
    plain = caption.encode("ascii", "replace").decode()[-52:]
    cv2.putText(tile, plain, (4, _HEIGHT + 15), 0, 0.42, RED if bad else (0, 0, 0), 1)
    return tile


def palette() -> Array:
    """A colour (BGR) for each of 256 numbers; neighbours differ much in hue."""
    hues = (np.arange(256) * 110) % 180
    plain = np.stack([hues, np.full(256, 200), np.full(256, 255)], -1).astype(np.uint8)
    return cv2.cvtColor(plain[None], cv2.COLOR_HSV2BGR)[0]
