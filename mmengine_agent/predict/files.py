"""Files that are there in whole or not at all: each is written beside its place, then moved."""

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, encoded as the path's ending says."""
    done, data = cv2.imencode(path.suffix, image)
    if not done:
        raise UserError(f"{path}: cannot write an image of {image.shape[1]} x {image.shape[0]}")
    write_file(path, data.tobytes())


def write_json(path: Path, content: Any) -> None:
    write_file(path, json.dumps(content, indent=1) + "\n")


class JsonList:
    """A JSON list that is written as it grows, an item a line."""

    def __init__(self, path: Path) -> None:
        self.path, self.part = path, path.with_name(path.name + ".part")
        self.file = self.part.open("w")
        self.empty = True

    def extend(self, items: list[Any]) -> None:
        for item in items:
            self.file.write(("[\n" if self.empty else ",\n") + json.dumps(item))
            self.empty = False

    def close(self, keep: bool) -> None:
        """Finish the file, or leave none."""
        self.file.write("[]\n" if self.empty else "\n]\n")
        self.file.close()
        _finish(self.part, self.path, keep)


class VideoFile:
    """A video, mp4, that is written picture by picture."""

    def __init__(self, path: Path, fps: float, shape: tuple[int, int]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.part = path, path.with_name(f"{path.stem}.part{path.suffix}")
        code = cv2.VideoWriter.fourcc(*"mp4v")
        self.writer = cv2.VideoWriter(str(self.part), code, fps, shape[::-1])
        if not self.writer.isOpened():
            raise UserError(f"{path}: OpenCV cannot write this video (--no-draw leaves it out)")

    def add(self, image: np.ndarray) -> None:
        self.writer.write(image)

    def close(self, keep: bool) -> None:
        """Finish the file, or leave none."""
        self.writer.release()
        _finish(self.part, self.path, keep)


def _finish(part: Path, path: Path, keep: bool) -> None:
    if keep:
        os.replace(part, path)
    else:
        part.unlink(missing_ok=True)
