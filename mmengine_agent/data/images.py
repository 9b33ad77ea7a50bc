"""Opening one image file to see whether it is whole, and how large it is in training."""

from io import BytesIO
from pathlib import Path

import cv2
from PIL import Image

Size = tuple[int, int]  # width, height
# endings of image files
IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}

_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright, 5..8 lie on their side
_MILLIONS = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6  # of pixels, from which on Pillow refuses
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # marks of formats


class ImageError(Exception):
    """What is wrong with an image or label map: (a word for it, a message with its path)."""


def measure(path: Path, fast: bool = False) -> tuple[Size, int]:
    """The size of an image as training sees it, EXIF's turn applied, and that turn, 1 if none.

    Raises:
        ImageError: as ``open_whole``, or 'format' if OpenCV does not know it.
    """
    image = open_whole(path, fast)
    if image.format not in _ENDS and not cv2.haveImageReader(str(path)):
        raise ImageError("format", f"{path}: it is {image.format}")
    try:
        turn = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF is no reason to refuse the pixels
        turn = 1
    return (image.height, image.width) if turn in (5, 6, 7, 8) else image.size, turn


def image_faults(path: Path, fast: bool = False) -> tuple[Size | None, list[tuple[str, str]]]:
    """The size of an image, and (kind, message) of what is wrong with it."""
    try:
        size, turn = measure(path, fast)
    except ImageError as error:
        return None, [(f"image-{error.args[0]}", error.args[1])]
    return size, [("image-rotated", f"EXIF orientation {turn}")] * (turn != 1)


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
        raise ImageError("missing", f"{path}: there is no such file") from None
    except OSError as error:
        raise ImageError("unreadable", f"{path}: {error.strerror}") from None
    if not data:
        raise ImageError("truncated", f"{path}: truncated, the file is empty")
    try:
        image = Image.open(file := BytesIO(data))
        header = file.tell()  # of a JPEG, where a thumbnail has an end mark of its own
        cut = data.rfind(_ENDS.get(str(image.format), b""), header) < 0
        if not cut and not fast:
            if image.format == "PNG":
                Image.open(BytesIO(data)).verify()  # checksums, which loading does not look at
            image.load()
    except Image.DecompressionBombError:  # a small file may hold them
        message = f"{path}: more than {_MILLIONS} million pixels: cut it into tiles"
        raise ImageError("unreadable", message) from None
    except Exception as error:  # Pillow's readers raise whatever a broken file leads to
        word = "truncated" if "truncated" in str(error) else "unreadable"
        text = f"{path}: no image can be opened ({type(error).__name__}: {error})"
        raise ImageError(word, text) from None
    if cut:
        raise ImageError("truncated", f"{path}: truncated, no end mark in {len(data)} bytes")
    return image
