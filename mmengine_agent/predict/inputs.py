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
Load = Callable[[Path], np.ndarray]  # path -> image (H, W, 3), uint8, BGR


@dataclass(eq=False)
class Frame:
    """An image, or one picture of a video."""

    path: Path
    image: np.ndarray  # (H, W, 3), uint8, BGR
    number: int | None = None  # in its video, from 0
    fps: float = 0.0  # of its video


def find(names: list[str]) -> tuple[list[Path], list[str]]:
    """The files that inputs stand for, each once, and what is wrong with the other inputs.

    A folder stands for the images and videos right in it, a pattern for what it matches (``**``
    goes into folders), a file for itself whatever its ending.
    """
    found: dict[Path, None] = {}
    faults = []
    for name in names:
        path = Path(name)
        inside = path.iterdir() if path.is_dir() else map(Path, glob(name, recursive=True))
        media = (each for each in inside if each.suffix.lower() in IMAGES | VIDEOS)
        matches = [path] if path.is_file() else sorted(each for each in media if each.is_file())
        found.update(dict.fromkeys(matches))
        if not matches:
            faults.append(f"{name}: no such file, or no image or video in the folder or pattern")
    return list(found), faults


def read(paths: Iterable[Path], load: Load, faults: list[str]) -> Iterator[Frame]:
    """The images and frames of files; a file that cannot be read adds a line to ``faults``."""
    for path in paths:
        try:
            video = path.suffix.lower() in VIDEOS
            yield from _frames(path) if video else [Frame(path, load(path))]
        except UserError as error:
            faults.append(str(error))


def _frames(path: Path) -> Iterator[Frame]:
    video = mmcv.VideoReader(str(path))
    number = 0
    while (image := video.vcap.read()[1]) is not None:
        yield Frame(path, image, number, video.fps if video.fps > 0 else 25.0)
        number += 1
    if number < 0.9 * video.frame_cnt or not number:
        raise UserError(f"{path}: {number} frames could be read, of about {video.frame_cnt}")
