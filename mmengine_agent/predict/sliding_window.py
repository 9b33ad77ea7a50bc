"""A sliding window: overlapping tiles that cover an image.

All tiles of an image have one size, so that a model sees every one at one scale: the last is moved
back to end with the image, and overlaps its neighbour by more than the others do.
"""

from itertools import pairwise
from typing import NamedTuple


class Span(NamedTuple):
    """A tile along one side of an image, in pixels."""

    start: int
    end: int
    share: tuple[int, int] = (0, 0)  # from, to: what is nearer to its middle than to another tile's


class Tile(NamedTuple):
    """A rectangle of an image."""

    rows: Span
    columns: Span

    @property
    def area(self) -> tuple[slice, slice]:
        """Index of the tile's pixels in an image (H, W, ...)."""
        return slice(self.rows.start, self.rows.end), slice(self.columns.start, self.columns.end)


def cover(height: int, width: int, size: int | None, overlap: int) -> list[Tile]:
    """Tiles of ``size`` pixels, or of the image where that is smaller; one tile for None."""
    size, overlap = (max(height, width), 0) if size is None else (size, overlap)
    columns = _cover_side(width, size, overlap)
    return [Tile(row, column) for row in _cover_side(height, size, overlap) for column in columns]


def _cover_side(length: int, size: int, overlap: int) -> list[Span]:
    step, size = size - overlap, min(size, length)
    starts = [*range(0, length - size, step), length - size]
    borders = [0, *((one + size + other) // 2 for one, other in pairwise(starts)), length]
    shares = pairwise(borders)
    return [Span(start, start + size, share) for start, share in zip(starts, shares, strict=True)]
