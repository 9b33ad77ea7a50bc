"""A contact sheet: pictures of sets with what is annotated drawn, those with faults first."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmengine_agent.data.check import CheckedSet
from mmengine_agent.data.faults import FAULT, Findings
from mmengine_agent.draw import RED, WHITE, Array, fit, read_image, write_image, write_text

SUFFIXES = (".jpg", ".jpeg", ".png")
_WIDTH, _HEIGHT, _CAPTION, _COLUMNS, _ROWS = 360, 270, 22, 4, 3  # pixels, tiles
_MARGIN = 4  # pixels around a picture in its tile
_GREY = 96


def write_sheet(path: Path, sets: Sequence[CheckedSet]) -> None:
    """Draw up to 12 pictures of each set, side by side, into one file of ``SUFFIXES``."""
    tiles = [tile for found in sets for tile in found.tiles()]
    if not tiles:
        return
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    rows = [np.hstack(tiles[at : at + _COLUMNS]) for at in range(0, len(tiles), _COLUMNS)]
    write_image(path, np.vstack(rows))


def choose(faulty: list[int], total: int) -> list[int]:
    """Which pictures to show: the first ones with faults, then others, evenly spread."""
    room = _COLUMNS * _ROWS
    spread = np.linspace(0, max(total - 1, 0), min(total, room)).astype(int).tolist()
    return list(dict.fromkeys([*faulty[:room], *spread]))[: min(room, total)]


def with_faults(findings: Findings, parts: tuple[str, ...]) -> set[int | str]:
    """What has a fault of a kind that begins with one of ``parts``."""
    return findings.at(*(k for k in findings.kinds(FAULT) if k.partition("-")[0] in parts))


def read_small(path: Path) -> tuple[Array, tuple[int, int]]:
    """A picture of a tile's size, and the (width, height) of the file; grey if it has no pixels."""
    image = read_image(path)
    if image is None:
        image = np.full((_HEIGHT, _WIDTH, 3), _GREY, np.uint8)
    small = fit(image, _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN)
    return small, (image.shape[1], image.shape[0])


def tile(picture: Array, caption: str, bad: bool) -> Array:
    """A picture of ``read_small`` with its name below, framed if faulty."""
    tile = np.full((_HEIGHT + _CAPTION, _WIDTH, 3), 255, np.uint8)
    bottom, right = _MARGIN + picture.shape[0], _MARGIN + picture.shape[1]
    tile[_MARGIN:bottom, _MARGIN:right] = picture
    if bad:
        cv2.rectangle(tile, (1, 1), (right + 2, bottom + 2), RED[::-1], 3)
    write_text(tile, caption[-48:], _MARGIN, _HEIGHT + 2, RED if bad else WHITE)
    return tile
