"""Opening one image file to see whether it is whole, and how large it is in training."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
from PIL import Image

# endings of image files
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}

_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright, 5..8 lie on their side
_MILLIONS = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6  # of pixels, from which on Pillow refuses
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # marks of formats


class Probe(NamedTuple):
    """What an image file is.

    Attributes:
        size: (width, height) in pixels as training sees them, EXIF's turn applied; None if the
            file is not whole.
        orientation: of EXIF, 1..8; 1 is upright.
        error: '', 'missing', 'unreadable', 'truncated' or 'format'.
        message: what is wrong.
    """

    size: tuple[int, int] | None = None
    orientation: int = 1
    error: str = ""
    message: str = ""

    def faults(self) -> Iterator[tuple[str, str]]:
        """(kind, message) of what is wrong with it."""
        if self.error:
            yield f"image-{self.error}", self.message
        if self.orientation != 1:
            yield "image-rotated", f"EXIF orientation {self.orientation}"


class ImageError(Exception):
    """What is wrong with an image or label map: (a word for it, a message)."""


def probe(path: Path, fast: bool = False) -> Probe:
    """Look at one image file, as ``open_whole`` does; OpenCV must know its format."""
    try:
        image = open_whole(path, fast)
    except ImageError as error:
        return Probe(None, 1, *error.args)
    if image.format not in _ENDS and not cv2.haveImageReader(str(path)):
        return Probe(None, 1, "format", f"it is {image.format}")
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF is no reason to refuse the pixels
        turn = 1
    return Probe(image.size[::-1] if turn in (5, 6, 7, 8) else image.size, turn)


def open_whole(path: Path, fast: bool = False) -> Image.Image:
    """Pillow's image of a file that is whole.

    It is decoded by Pillow, which unlike OpenCV says when data end early; JPEG and PNG must also
    have their end marks, PNG the right checksums. ``fast`` leaves the decoding out.

    Raises:
        ImageError: 'missing', 'unreadable' or 'truncated', and a message.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError("missing", "there is no such file") from None
    except OSError as error:
        raise ImageError("unreadable", str(error.strerror)) from None
    if not data:
        raise ImageError("truncated", "truncated, the file is empty")
    try:
        image = Image.open(file := BytesIO(data))
        header = file.tell()  # of a JPEG, where a thumbnail has an end mark of its own
        cut = data.rfind(_ENDS.get(str(image.format), b""), header) < 0
        if not cut and not fast:
            if image.format == "PNG":
                Image.open(BytesIO(data)).verify()  # checksums, which loading does not look at
            image.load()
    except Image.DecompressionBombError:  # a small file may hold them
        message = f"more than {_MILLIONS} million pixels: cut it into tiles"
        raise ImageError("unreadable", message) from None
    except Exception as error:  # Pillow's readers raise whatever a broken file leads to
        word = "truncated" if "truncated" in str(error) else "unreadable"
        text = f"no image can be opened ({type(error).__name__}: {error})"
        raise ImageError(word, text) from None
    if cut:
        raise ImageError("truncated", f"truncated, no end mark in {len(data)} bytes")
    return image
