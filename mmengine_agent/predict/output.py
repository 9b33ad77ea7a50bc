"""Where predictions go: a folder of pictures, results and a list of the images.

images.json       file name, size and frame of each image, and the classes
predictions.json  COCO results of a detector, with the image ids of images.json
labels/           label maps of a segmentor, PNG, of the images' sizes
legend.png        of a segmentor: its colours
drawn/            the images and videos with the predictions drawn in
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mmengine_agent.draw import write_image, write_legend
from mmengine_agent.errors import UserError
from mmengine_agent.files import whole_file, write_whole
from mmengine_agent.predict.inputs import Frame
from mmengine_agent.predict.writer import Save, Writer

_KEPT = {".jpg", ".jpeg", ".png"}  # other images are drawn as PNG


def write_predictions(
    results: Iterable[tuple[Frame, Any]], folder: Path, writer: Writer, draw: bool, save: bool
) -> list[dict[str, Any]]:
    """Write what was predicted for each frame; images are drawn over.

    Every file is written atomically. The folder is made for the first result.

    Returns:
        The images, as COCO lists them.
    """
    images: list[dict[str, Any]] = []
    names: dict[str, Path] = {}
    with ExitStack() as files:
        save_result: Save | None = None
        for path, frames in groupby(results, key=lambda pair: pair[0].path):
            stem = _unique_stem(path, names)
            with _drawn(folder / "drawn", stem) as add:
                for frame, result in frames:
                    if save and save_result is None:
                        save_result = files.enter_context(writer.saving(folder))
                    images.append(_entry(frame, len(images) + 1))
                    if save_result is not None:
                        name = stem if frame.number is None else f"{stem}/{frame.number:06d}"
                        save_result(len(images), name, frame.image.shape[:2], result)
                    if draw:
                        writer.draw(frame.image, result)
                        add(frame)
    return images


def write_listing(
    folder: Path, images: list[dict[str, Any]], writer: Writer, info: dict[str, Any], legend: bool
) -> None:
    """Write images.json, with ``info`` on how the predictions were made, and the legend."""
    content = {"info": info, "images": images, "annotations": []}
    content["categories"] = writer.categories()
    write_whole(folder / "images.json", json.dumps(content, indent=1) + "\n")
    if legend and writer.needs_legend:
        write_legend(folder / "legend.png", writer.classes.names, writer.classes.colours)


@contextmanager
def _drawn(folder: Path, stem: str) -> Iterator[Callable[[Frame], None]]:
    """A function that writes an image, or adds a frame to the video of one source."""
    with ExitStack() as files:
        add_to_video: Callable[[np.ndarray], None] | None = None

        def add(frame: Frame) -> None:
            nonlocal add_to_video
            if frame.number is None:
                suffix = frame.path.suffix.lower()
                suffix = suffix if suffix in _KEPT else ".png"
                write_image(folder / f"{stem}{suffix}", frame.image)
                return
            if add_to_video is None:
                video = write_video(folder / f"{stem}.mp4", frame.fps, frame.image.shape)
                add_to_video = files.enter_context(video)
            add_to_video(frame.image)

        yield add


@contextmanager
def write_video(
    path: Path, fps: float, shape: tuple[int, ...]
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds pictures (H, W, 3) of one shape to an mp4 video.

    Raises:
        UserError: if OpenCV cannot write it.
    """
    with whole_file(path) as part:
        inside = part.with_name(part.name + path.suffix)  # OpenCV knows the kind by the ending
        code = cv2.VideoWriter.fourcc(*"mp4v")
        video = cv2.VideoWriter(str(inside), code, fps, shape[1::-1])
        try:
            if not video.isOpened():
                raise UserError(f"{path}: OpenCV cannot write this video (--no-draw leaves it out)")
            yield video.write
            video.release()
            os.replace(inside, part)
        finally:
            video.release()
            inside.unlink(missing_ok=True)


def _entry(frame: Frame, image_id: int) -> dict[str, Any]:
    height, width = frame.image.shape[:2]
    entry = {"id": image_id, "file_name": str(frame.path), "width": width, "height": height}
    return entry if frame.number is None else {**entry, "frame": frame.number}


def _unique_stem(path: Path, names: dict[str, Path]) -> str:
    """A name for the outputs of a file, the file's own unless another file has it."""
    stem, number = path.stem, 1
    while names.setdefault(stem, path) != path:
        number += 1
        stem = f"{path.stem}_{number}"
    return stem
