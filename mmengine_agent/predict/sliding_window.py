"""A sliding window: overlapping tiles that cover an image, and their weights where they meet."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np


class Tile(NamedTuple):
    """A rectangle of an image in pixels, and its place in the grid of tiles."""

    y: int
    x: int
    height: int
    width: int
    row: int
    column: int

    @property
    def area(self) -> tuple[slice, slice]:
        """Index of the tile's pixels in an image (H, W, ...)."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True)
class Axis:
    """How tiles lie along one side of an image; all numbers are pixels.

    All tiles have one size, so that a model sees every one at one scale: the last is moved back
    to end with the image, and overlaps its neighbour by more than the others do.
    """

    length: int
    size: int
    starts: tuple[int, ...]

    @classmethod
    def cover(cls, length: int, size: int, overlap: int) -> "Axis":
        size, step = min(size, length), size - overlap
        return cls(length, size, (*range(0, length - size, step), length - size))

    def final(self, index: int) -> int:
        """How many of a tile's first pixels no later tile has."""
        return ([*self.starts[1:], self.length][index]) - self.starts[index]

    def overlaps(self, index: int) -> tuple[bool, bool]:
        """Whether the neighbour before, and the one after, has pixels of this tile."""
        before = index > 0 and self.final(index - 1) < self.size
        return before, self.final(index) < self.size

    @cached_property
    def weights(self) -> list[np.ndarray]:
        """Each tile's share (size,) of its pixels; the shares of all tiles add up to one.

        They fall towards the tile's ends, where a model sees least of the surroundings.
        """
        ramp = np.minimum(np.arange(1, self.size + 1), np.arange(self.size, 0, -1))
        total = np.zeros(self.length)
        for start in self.starts:
            total[start : start + self.size] += ramp
        return [
            (ramp / total[start : start + self.size]).astype(np.float32) for start in self.starts
        ]


@dataclass(frozen=True)
class Grid:
    """The tiles of one image, row by row."""

    rows: Axis
    columns: Axis

    @classmethod
    def cover(cls, height: int, width: int, size: int | None, overlap: int) -> "Grid":
        """Tiles of ``size`` pixels, or of the image where that is smaller; one tile for None."""
        size, overlap = (max(height, width), 0) if size is None else (size, overlap)
        return cls(Axis.cover(height, size, overlap), Axis.cover(width, size, overlap))

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def __iter__(self) -> Iterator[Tile]:
        for row, y in enumerate(self.rows.starts):
            for column, x in enumerate(self.columns.starts):
                yield Tile(y, x, self.rows.size, self.columns.size, row, column)

    def number(self, tile: Tile) -> int:
        """Which tile it is, from 1."""
        return tile.row * len(self.columns.starts) + tile.column + 1

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.rows.length, self.columns.length
