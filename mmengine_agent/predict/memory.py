"""Memory that predictions take: how many pixels a model may see at once.

Models that are linear in pixels, as those with agents are, take a base and a number of bytes a
pixel. Both are measured when the tool starts, on a few small images; a model that grows faster
(softmax attention of all tokens) is given its second power, too.
"""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import CDLL
from functools import cache, partial
from math import isqrt, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mmengine_agent.errors import UserError
from mmengine_agent.predict.model import Predictor
from mmengine_agent.predict.sliding_window import Tile

LEAST_TILE = 256  # pixels of a side: in less, a model sees too little around things
_SIDES = (LEAST_TILE, 512, 1024, 1536)  # of the images that are measured
AROUND = 12  # bytes a pixel of an image, its labels, and their copies while they are written
_KEPT = 100 * 10**6  # bytes of what a backbone keeps by the size of its maps, as sizes change
_MARGIN = 1.1  # what is expected, to what is measured
_BEND = 1.2  # by how much the growth may differ between small images
_STEP = 32  # a side of tiles is a multiple of it
_UNITS = "KMGT"
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


def read_size(text: str) -> int:
    """Bytes of a size such as '8GB', '7.5 GiB', '800MB' or a number of bytes; a type of flags."""
    match = re.fullmatch(r"(\d+\.?\d*) *(?:([KMGT])(I?))?B?", text.strip().upper())
    if not match or not float(match[1]):
        raise ArgumentTypeError(f"{text!r} is no size such as 8GB, 7.5GiB or 800MB")
    power = _UNITS.index(match[2]) + 1 if match[2] else 0
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def show_size(count: float) -> str:
    """Bytes in GB."""
    return f"{count / 1e9:.{1 if count >= 1e10 else 2}f} GB"


class Memory(NamedTuple):
    """Bytes that a prediction takes at most, over pixels p: base + linear p + square p²."""

    base: float
    linear: float
    square: float = 0.0

    def peak(self, pixels: float) -> float:
        """Bytes expected of images that have so many pixels together."""
        return self.base + _MARGIN * (self.linear + self.square * pixels) * pixels

    def most_pixels(self, size: float) -> int:
        """How many pixels a size in bytes is enough for."""
        room = max(0.0, (size - self.base) / _MARGIN)  # linear p + square p²
        slope = self.linear + sqrt(self.linear**2 + 4 * self.square * room)
        return int(2 * room / max(slope, 1e-6))


def fit(points: Sequence[tuple[int, float]]) -> Memory:
    """From pixels and peaks of two or more images, smallest first."""
    (p1, m1), (p2, m2) = points[-2:]
    slope = max(0.0, (m2 - m1) / (p2 - p1))
    if len(points) > 2:
        p0, m0 = points[-3]
        before = max(0.0, (m1 - m0) / (p1 - p0))
        if slope > _BEND * before:
            square = (slope - before) / (p2 - p0)
            linear = slope - square * (p1 + p2)
            return Memory(m2 - (linear + square * p2) * p2, linear, square)
    return Memory(m2 - slope * p2, slope)


class Limit:
    """Cuts images so that predictions stay within a size in bytes.

    Args:
        size: the bytes.
        memory: what predictions take.
        pixels: how many pixels the model sees of an image (H, W).
        around: bytes a pixel of an image, beside what its prediction takes.
        joins_tiles: whether tiles make an image again.
    """

    def __init__(
        self,
        size: int,
        memory: Memory,
        pixels: Callable[[int, int], int],
        around: int = AROUND,
        joins_tiles: bool = True,
    ) -> None:
        self.size, self.memory, self.pixels = size, memory, pixels
        self.around, self.joins_tiles = around, joins_tiles

    @classmethod
    def of(
        cls, size: int, predictor: Predictor, device: torch.device, joins_tiles: bool
    ) -> "Limit":
        """The limit of a model's predictions, after some of noise to ``measure`` what they take."""
        pixels = cache(predictor.pixels)
        memory = measure(size, predictor, pixels, device)
        around = AROUND if device.type == "cpu" else 0
        return cls(size, memory, pixels, around, joins_tiles)

    def tile_side(self, height: int, width: int) -> int | None:
        """The side of the largest tiles of an image that fit; None if it fits as a whole.

        Raises:
            UserError: if not even a small tile fits, or tiles are not joined.
        """
        around = self.around * height * width
        whole = self._peak(max(height, width), height, width)
        if whole <= self.size:
            return None
        if not self.joins_tiles:
            raise UserError(
                f"whole it takes about {show_size(whole)}, more than --max-memory "
                f"{show_size(self.size)}, and this model's tiles are not joined"
            )
        pixels = self.memory.most_pixels(self.size - around)
        side, short = isqrt(pixels), min(height, width)
        if side > short:  # tiles are no higher than the image
            side = pixels // short
        side = side // _STEP * _STEP
        if side < LEAST_TILE or self._seen(side, height, width) > pixels:
            raise too_little(self._peak(LEAST_TILE, height, width), self.size)
        return side

    def takes(self, parts: Sequence[tuple[np.ndarray, Tile]]) -> bool:
        """Whether tiles of images may go through the model together."""
        images = {id(image): image.shape[0] * image.shape[1] for image, _ in parts}
        seen = (
            self.pixels(rows.end - rows.start, columns.end - columns.start)
            for _, (rows, columns) in parts
        )
        return self.memory.peak(sum(seen)) + self.around * sum(images.values()) <= self.size

    def describe(self, height: int, width: int, side: int | None) -> str:
        """A line on how an image is predicted."""
        whole = self._peak(max(height, width), height, width)
        text = f"{height} x {width} pixels:"
        if side is None:
            return f"{text} whole, about {show_size(whole)} of {show_size(self.size)}"
        used = f"about {show_size(self._peak(side, height, width))} of {show_size(self.size)}"
        return f"{text} tiles of {side} pixels, {used} (whole: {show_size(whole)})"

    def _peak(self, side: int, height: int, width: int) -> float:
        """Bytes expected of an image in tiles of a side."""
        return self.memory.peak(self._seen(side, height, width)) + self.around * height * width

    def _seen(self, side: int, height: int, width: int) -> int:
        """How many pixels the model sees of a tile of an image."""
        return self.pixels(min(side, height), min(side, width))


def measure(
    size: int, predictor: Predictor, pixels: Callable[[int, int], int], device: torch.device
) -> Memory:
    """What predictions take, from images of ``_SIDES`` as far as they fit.

    Args:
        size: bytes that are allowed.
        predictor: of the model; it predicts noise.
        pixels: how many pixels the model sees of an image (H, W).
        device: of the model.

    Raises:
        UserError: if not even the smallest image fits, or memory cannot be measured here.
    """
    noise = np.random.default_rng(0)
    points: list[tuple[int, float]] = []
    predictor([np.zeros((LEAST_TILE, LEAST_TILE, 3), np.uint8)])  # what is made once
    for side in _SIDES:
        seen = pixels(side, side)
        if points and seen == points[-1][0]:  # both enlarged to one size
            continue
        if len(points) > 1 and fit(points).peak(seen) + _KEPT > size:
            break
        image = noise.integers(0, 256, (side, side, 3), np.uint8)
        points.append((seen, peak_memory(partial(predictor, [image]), device)))
        if points[0][1] + _KEPT > size:
            raise too_little(points[0][1] + _KEPT, size)
    found = fit(points)
    return found._replace(base=found.base + _KEPT)


def too_little(needed: float, size: int) -> UserError:
    """What to say where not even the least tile can be predicted."""
    return UserError(
        f"--max-memory {show_size(size)} is too little: a tile of {LEAST_TILE} x {LEAST_TILE} "
        f"pixels takes about {show_size(needed)} here"
    )


def peak_memory(call: Callable[[], Any], device: torch.device) -> int:
    """Bytes that the process had at most during a call; on a GPU, those that torch had of it.

    Raises:
        UserError: if the system does not say.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_reserved(device)
    found = None
    if device.type == "cpu" and restart_peak():
        call()
        found = read_peak()
    if found is None:
        raise UserError(
            f"--max-memory: what a prediction takes on {device.type} cannot be measured on this "
            "system (it can on Linux, and on CUDA); give --tile SIZE"
        )
    return found


def give_back() -> None:
    """Have the C library give memory that is free back to the system, where it can (glibc).

    It keeps up to 32 MiB of each tensor, in pieces that the next size of image may not fit into.
    """
    with suppress(AttributeError, OSError):
        CDLL(None).malloc_trim(0)


def restart_peak() -> bool:
    """Have the peak of the process's memory begin anew; whether the system can."""
    give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def read_peak() -> int | None:
    """The peak of the process's memory in bytes; None where the system does not say."""
    try:
        found = _PEAK.search(Path("/proc/self/status").read_text())
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None
