"""What to predict on: image and video files, folders of them, and patterns such as ``a/*.jpg``."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path

import mmcv
import numpy as np

from mmengine_agent.data.images import IMAGES
from mmengine_agent.errors import UserError

VIDEOS = {".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg"}

Load = Callable[[str], np.ndarray]  # path -> image (H, W, 3), uint8, BGR


@dataclass
class Frame:
    """An image, or one picture of a video."""

    path: Path
    image: np.ndarray  # (H, W, 3), uint8, BGR
    number: int | None = None  # in its video, from 0
    fps: float | None = None  # of its video


def find(names: list[str]) -> tuple[list[Path], list[str]]:
    """The files that inputs stand for, each once, and what is wrong with the other inputs.

    A folder stands for the images and videos right in it, a pattern for what it matches (``**``
    goes into folders), a file for itself whatever its ending.
    """
    found: dict[Path, None] = {}
    faults = []
    for name in names:
        try:
            found.update(dict.fromkeys(_expand(name)))
        except UserError as error:
            faults.append(str(error))
    return list(found), faults


def _expand(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return _media(sorted(path.iterdir())) or _fail(f"{path}: no images or videos in the folder")
    if path.is_file():
        return [path]
    if not any(sign in name for sign in "*?["):
        return _fail(f"{path}: there is no such file or folder")
    matches = [Path(match) for match in sorted(glob(name, recursive=True))]
    return _media(matches) or _fail(f"{name}: the pattern matches no image or video")


def _media(paths: Iterable[Path]) -> list[Path]:
    kinds = IMAGES | VIDEOS
    return [path for path in paths if path.suffix.lower() in kinds and path.is_file()]


def _fail(message: str) -> list[Path]:
    raise UserError(message)


def count(paths: list[Path]) -> int:
    """How many images and video frames there are; a video's own word is taken for it."""
    return sum(_frame_count(path) if is_video(path) else 1 for path in paths)


def _frame_count(path: Path) -> int:
    return max(0, mmcv.VideoReader(str(path)).frame_cnt)


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEOS


def read(paths: list[Path], load: Load, faults: list[str]) -> Iterator[Frame]:
    """The images and frames of files; a file that cannot be read adds a line to ``faults``."""
    for path in paths:
        try:
            yield from _frames(path) if is_video(path) else [Frame(path, _image(path, load))]
        except UserError as error:
            faults.append(str(error))


def _image(path: Path, load: Load) -> np.ndarray:
    try:
        return load(str(path))
    except Exception as error:  # decoders raise whatever they like
        raise UserError(f"{path}: cannot be read as an image") from error


def _frames(path: Path) -> Iterator[Frame]:
    video = mmcv.VideoReader(str(path))
    number = 0
    while (image := video.vcap.read()[1]) is not None:
        yield Frame(path, image, number, video.fps if video.fps > 0 else 25.0)
        number += 1
    if number < 0.9 * video.frame_cnt or not number:  # containers only estimate how many there are
        raise UserError(f"{path}: {number} frames could be read, of about {video.frame_cnt}")
