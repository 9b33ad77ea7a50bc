"""Where predictions go: a folder of pictures, results and a list of the images.

images.json       file name, size and frame of each image, and the classes
predictions.json  COCO results of a detector, with the image ids of images.json
panoptic/         segments of a panoptic model, PNG; panoptic.json has their classes
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
from mmengine_agent.files import atomic_write, write_file
from mmengine_agent.predict.inputs import Frame
from mmengine_agent.predict.writer import Writer

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
    for path, frames in groupby(results, key=lambda pair: pair[0].path):
        stem = _unique_stem(path, names)
        kept = path.suffix.lower() if path.suffix.lower() in _KEPT else ".png"
        add: Callable[[np.ndarray], None] | None = None  # to the video
        with ExitStack() as video:
            for frame, result in frames:
                (height, width), number = frame.image.shape[:2], frame.number
                entry = {"id": len(images) + 1, "file_name": str(path)}
                entry |= {"width": width, "height": height}
                images.append(entry if number is None else {**entry, "frame": number})
                if save:
                    name = stem if number is None else f"{stem}/{number:06d}"
                    writer.save(folder, name, len(images), (height, width), result)
                if not draw:
                    continue
                writer.draw(frame.image, result)
                if number is None:
                    write_image(folder / f"drawn/{stem}{kept}", frame.image)
                else:
                    shape, file = frame.image.shape, folder / f"drawn/{stem}.mp4"
                    add = add or video.enter_context(write_video(file, frame.fps, shape))
                    add(frame.image)
    if images and save:
        writer.finish(folder)
    return images


def write_listing(
    folder: Path, images: list[dict[str, Any]], writer: Writer, info: dict[str, Any], legend: bool
) -> None:
    """Write images.json, with ``info`` on how the predictions were made, and the legend."""
    classes = writer.classes
    columns = zip(classes.ids, classes.names, classes.colours, strict=True)
    categories = [{"id": i, "name": name, "color": colour} for i, name, colour in columns]
    content = {"info": info, "images": images, "annotations": [], "categories": categories}
    write_file(folder / "images.json", json.dumps(content, indent=1) + "\n")
    if legend and writer.needs_legend:
        write_legend(folder / "legend.png", classes.names, classes.colours)


@contextmanager
def write_video(
    path: Path, fps: float, shape: tuple[int, ...]
) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that adds pictures (H, W, 3) of one shape to an mp4 video.

    Raises:
        UserError: if OpenCV cannot write it.
    """
    with atomic_write(path) as part:
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


def _unique_stem(path: Path, names: dict[str, Path]) -> str:
    """A name for the outputs of a file, the file's own unless another file has it."""
    stem, number = path.stem, 1
    while names.setdefault(stem, path) != path:
        number += 1
        stem = f"{path.stem}_{number}"
    return stem
