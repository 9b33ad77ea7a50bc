"""Pictures that come from a browser, and pictures that go to one."""

import base64
import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmengine_agent.data.images import IMAGES
from mmengine_agent.draw import encode, fit
from mmengine_agent.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")  # by what is in a file
MEGAPIXELS = 100  # that a picture may have
THUMBNAIL = 112  # pixels of a side
_WIDEST = 20_000  # pixels of a side; a strip of 1 x 40 million would break whatever comes after


def read_picture(data: bytes, most: int) -> np.ndarray:
    """A picture as training reads it, 8 bits a channel, turned as EXIF asks, no transparency.

    Args:
        data: of the file.
        most: bytes that it may have.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        UserError: if it cannot be read; the message is for someone who sees the page alone.
    """
    if len(data) > most:
        raise too_large(len(data), most)
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(data), formats=FORMATS) as found:
            warnings.simplefilter("ignore")  # of many pixels, which are counted here
            width, height = found.size
            _require_size(width, height)
            found.load()  # unlike OpenCV, Pillow says when data end early
    except UnidentifiedImageError:
        raise UserError(
            "This file is no picture that the page can read: take a JPEG, PNG, WebP, BMP or TIFF."
        ) from None
    except Image.DecompressionBombError:
        raise UserError(f"The picture has more than {MEGAPIXELS} megapixels.") from None
    except UserError:
        raise
    except Exception:  # Pillow's readers raise whatever a broken file leads to
        raise UserError("The picture is broken or was cut off: it cannot be read whole.") from None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise UserError("The picture has a kind of pixels that the page cannot read.")
    return image


def _require_size(width: int, height: int) -> None:
    if width * height > MEGAPIXELS * 10**6 or max(width, height) > _WIDEST:
        raise UserError(
            f"The picture has {width} x {height} pixels: the page takes up to {MEGAPIXELS} "
            f"megapixels, and {_WIDEST} pixels a side."
        )
    if min(width, height) < 8:
        raise UserError(f"The picture has {width} x {height} pixels: that is too few.")


def too_large(size: int, most: int) -> UserError:
    """What to say of a file of ``size`` bytes where ``most`` are taken."""
    return UserError(f"The file has {size / 1e6:.1f} MB: the page takes up to {most / 1e6:.0f} MB.")


def data_url(image: np.ndarray) -> str:
    """A picture (H, W, 3) BGR as an address that holds it, so that no file is asked for."""
    data = encode(image, "picture.jpg", cv2.IMWRITE_JPEG_QUALITY, 90)
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def sample(grid: np.ndarray, size: tuple[int, int], extent: tuple[float, float]) -> np.ndarray:
    """The cells of a grid (h, w, ...) that the pixels of a picture lie in.

    Args:
        grid: the cells.
        size: (H, W) of the picture.
        extent: (H', W'), how many of the picture's pixels the whole grid spans.
    """
    places = [
        np.minimum((np.arange(side) + 0.5) / span * cells, cells - 1).astype(int)
        for side, span, cells in zip(size, extent, grid.shape[:2], strict=True)
    ]
    return grid[places[0][:, None], places[1]]


class Gallery:
    """The pictures of a folder, by number: no path of them is shown."""

    page = 24  # thumbnails at once

    def __init__(self, folder: str | None) -> None:
        """List a folder; None has no pictures.

        Raises:
            UserError: if it has none, or is not there.
        """
        inside = sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else []
        self.files = [file for file in inside if file.suffix.lower() in IMAGES and file.is_file()]
        if folder and not self.files:
            raise UserError(f"--images {folder}: no such folder, or no image in it")

    def __len__(self) -> int:
        return len(self.files)

    def read(self, number: int) -> bytes:
        """The file of a number from 0.

        Raises:
            UserError: if there is none, or it cannot be read any more.
        """
        try:
            if number < 0:
                raise IndexError
            return self.files[number].read_bytes()
        except (IndexError, OSError):
            raise UserError("This picture of the gallery is not there any more.") from None

    def thumbnails(self, first: int) -> list[tuple[int, str]]:
        """Numbers and small pictures, as ``data_url``, from a number on; broken ones left out."""
        found = []
        for number in range(first, min(first + self.page, len(self))):
            try:
                with Image.open(self.files[number], formats=FORMATS) as picture:
                    picture.draft("RGB", (THUMBNAIL, THUMBNAIL))  # decodes JPEGs small, quickly
                    _require_size(*picture.size)
                    turned = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
            except Exception:  # what is wrong with it is said when it is asked for
                continue
            found.append((number, data_url(fit(turned[..., ::-1], THUMBNAIL, THUMBNAIL))))
        return found
