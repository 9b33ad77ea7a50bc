"""A contact sheet: pictures of sets with what is annotated drawn, those with faults first."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmengine_agent.data.check import CheckedSet
from mmengine_agent.draw import RED, WHITE, Array, fit, read_image, write_image, write_text

SUFFIXES = (".jpg", ".jpeg", ".png")
_WIDTH, _HEIGHT, _CAPTION, _COLUMNS, _ROWS = 360, 270, 22, 4, 3  # pixels, tiles
_MARGIN = 4  # pixels around a picture in its tile


def write_sheet(path: Path, sets: Sequence[CheckedSet]) -> None:
    """Draw up to 12 pictures of each set, side by side, into one file of ``SUFFIXES``.

    They are the first ones with faults, then others, evenly spread.
    """
    tiles = []
    for found in sets:
        total, faulty = found.pictures()
        room = min(_COLUMNS * _ROWS, total)
        spread = np.linspace(0, max(total - 1, 0), room).astype(int).tolist()
        for index in [*dict.fromkeys([*sorted(faulty)[:room], *spread])][:room]:
            tiles.append(_tile(*found.draw(index), index in faulty))
    if not tiles:
        return
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    rows = [np.hstack(tiles[at : at + _COLUMNS]) for at in range(0, len(tiles), _COLUMNS)]
    write_image(path, np.vstack(rows))


def read_small(path: Path) -> Array:
    """A picture of a tile's size; grey if it has no pixels."""
    image = read_image(path)
    image = np.full((_HEIGHT, _WIDTH, 3), 96, np.uint8) if image is None else image
    return fit(image, _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN)


def _tile(picture: Array, caption: str, bad: bool) -> Array:
    """A picture with its name below, framed if faulty."""
    tile = np.full((_HEIGHT + _CAPTION, _WIDTH, 3), 255, np.uint8)
    bottom, right = _MARGIN + picture.shape[0], _MARGIN + picture.shape[1]
    tile[_MARGIN:bottom, _MARGIN:right] = picture
    if bad:
        cv2.rectangle(tile, (1, 1), (right + 2, bottom + 2), RED[::-1], 3)
    write_text(tile, caption[-48:], _MARGIN, _HEIGHT + 2, RED if bad else WHITE)
    return tile
