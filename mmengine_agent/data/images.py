"""Opening one image file to see whether it is whole, and how large it is in training."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image

# endings of image files
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
Item = TypeVar("Item")
Result = TypeVar("Result")

_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright, 5..8 lie on their side
_MILLIONS = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6  # of pixels, from which on Pillow refuses
_JPEG, _PNG_END = {"JPEG", "MPO"}, b"IEND\xaeB`\x82"
_MARKS = {"JPEG": b"\xff\xd8", "PNG": b"\x89PNG\r\n\x1a\n"}  # first bytes of files


@dataclass(frozen=True)
class Probe:
    """What an image file is.

    Attributes:
        size: (width, height) in pixels as training sees them, EXIF's turn applied; None if the
            file cannot be opened.
        orientation: of EXIF, 1..8; 1 is upright.
        error: '', 'missing', 'unreadable', 'truncated' or 'format'.
        message: what is wrong.
    """

    size: tuple[int, int] | None = None
    orientation: int = 1
    error: str = ""
    message: str = ""


class ImageError(Exception):
    """What is wrong with an image or label map: (a word for it, a message)."""


def probe(path: Path, fast: bool = False) -> Probe:
    """Look at one image file.

    It is decoded as a whole, by Pillow, which unlike OpenCV says when data end early; JPEG and PNG
    must also have their end marks, PNG the right checksums, and what is neither must be read by
    OpenCV too. ``fast`` leaves the decoding out: header and end marks only.
    """
    try:
        data = read(path)
        image = open_image(data)
    except ImageError as error:
        return Probe(None, 1, *error.args)
    turn = _orientation(image)
    size = image.size[::-1] if turn >= 5 else image.size
    try:
        require_whole(image, data, fast)
        if not fast and image.format not in {*_JPEG, "PNG"}:
            _require_opencv(image, data)
    except ImageError as error:
        return Probe(size, turn, *error.args)
    return Probe(size, turn)


def read(path: Path) -> bytes:
    """The bytes of a file; raises ImageError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError("missing", "there is no such file") from None
    except OSError as error:
        raise ImageError("unreadable", str(error.strerror)) from None
    if not data:
        raise ImageError("truncated", "truncated, the file is empty")
    return data


def open_image(data: bytes) -> Image.Image:
    """Pillow's image, not yet decoded; raises ImageError."""
    try:
        return Image.open(BytesIO(data))
    except Image.DecompressionBombError:  # a small file may hold them
        message = f"more than {_MILLIONS} million pixels: cut it into tiles"
        raise ImageError("unreadable", message) from None
    except Exception as error:  # Pillow's readers raise whatever a broken header leads to
        cut = any(data.startswith(_MARKS[name]) and _lacks_end(name, data) for name in _MARKS)
        message = f"no image can be opened ({type(error).__name__})"
        if cut:
            raise ImageError("truncated", f"truncated, {message}") from None
        raise ImageError("unreadable", message) from None


def require_whole(image: Image.Image, data: bytes, fast: bool) -> None:
    """Raise ImageError unless the image is whole; decodes it unless ``fast``."""
    if _lacks_end(image.format or "", data):
        raise ImageError("truncated", f"truncated, no end mark in {len(data)} bytes")
    if fast:
        return
    try:
        if image.format == "PNG":
            with Image.open(BytesIO(data)) as copy:
                copy.verify()  # checksums, which loading does not look at
        image.load()
    except Exception as error:  # as above
        word = "truncated" if "truncated" in str(error) else "unreadable"
        raise ImageError(word, f"{type(error).__name__}: {error}") from None


def map_in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """``map`` in threads, in order, with no more than a few hundred items under way.

    Decoders give up the interpreter's lock, so threads are enough, and start at no cost.
    """
    rest = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while window := list(islice(rest, 256)):
            yield from pool.map(function, window)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF is no reason to refuse the pixels
        return 1
    return value if value in range(1, 9) else 1


def _require_opencv(image: Image.Image, data: bytes) -> None:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise ImageError("format", f"it is {image.format}")


def _lacks_end(format_: str, data: bytes) -> bool:
    if format_ in _JPEG:
        return data.rfind(b"\xff\xd9", _scan_start(data)) < 0
    return format_ == "PNG" and _PNG_END not in data


def _scan_start(data: bytes) -> int:
    """Where a JPEG's pixels start: before, thumbnails may have end marks of their own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:
            return at
        alone = marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD8
        at += (1 if marker == 0xFF else 2) + (
            0 if alone else int.from_bytes(data[at + 2 : at + 4], "big")
        )
    return len(data)
