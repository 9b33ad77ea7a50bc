"""Where predictions go: a folder of pictures, results and a list of the images.

images.json       file name, size and frame of each image, and the classes
predictions.json  COCO results of a detector, with the image ids of images.json
labels/           label maps of a segmentor, PNG, of the images' sizes
legend.png        of a segmentor: its colours
drawn/            the images and videos with the predictions drawn in
"""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Any

from mmengine_agent.errors import UserError
from mmengine_agent.predict.draw import write_legend
from mmengine_agent.predict.files import VideoFile, write_image, write_json
from mmengine_agent.predict.inputs import Frame
from mmengine_agent.predict.writer import Writer

_KEPT = {".jpg", ".jpeg", ".png"}  # other images are drawn as PNG


class Output:
    """A context: what is written within it stays if it ends well; unfinished files never do."""

    def __init__(
        self, folder: Path, writer: Writer, info: dict[str, Any], draw: bool = True
    ) -> None:
        """``info``: how the predictions were made, for images.json."""
        self.folder, self.writer, self.info, self.draw = folder, writer, info, draw
        self.images: list[dict[str, Any]] = []
        self.names: dict[str, Path] = {}
        self.video: VideoFile | None = None
        self.source: Path | None = None  # of the latest frame
        self.made = not folder.exists()

    def __enter__(self) -> "Output":
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {self.folder}: {error.strerror}") from error
        self.writer.open(self.folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        keep = kind is None and bool(self.images)
        self._close_video(kind is None)
        self.writer.close(keep)
        if self.made and not self.images:
            with contextlib.suppress(OSError):  # not empty
                self.folder.rmdir()
        if keep:
            listing = {"info": self.info, "images": self.images, "annotations": []}
            write_json(
                self.folder / "images.json", {**listing, "categories": self.writer.categories}
            )
            if self.draw and self.writer.needs_legend:
                write_legend(self.folder / "legend.png", self.writer.classes)

    def add(self, frame: Frame, result: Any) -> None:
        """Write what was predicted for a frame; its image is drawn over."""
        height, width = frame.image.shape[:2]
        image_id = len(self.images) + 1
        entry = {"id": image_id, "file_name": str(frame.path), "width": width, "height": height}
        if frame.number is not None:
            entry["frame"] = frame.number
        stem = self._stem(frame.path)
        number = "" if frame.number is None else f"/{frame.number:06d}"
        self.writer.save(image_id, f"{stem}{number}", (height, width), result)
        self.images.append(entry)
        if self.draw:
            self.writer.draw(frame.image, result)
            self._picture(frame, stem)

    def _picture(self, frame: Frame, stem: str) -> None:
        if frame.path != self.source:
            self._close_video(True)
        self.source = frame.path
        if frame.fps is None:
            suffix = frame.path.suffix.lower()
            name = stem + (suffix if suffix in _KEPT else ".png")
            write_image(self.folder / "drawn" / name, frame.image)
            return
        if self.video is None:
            path = self.folder / "drawn" / f"{stem}.mp4"
            self.video = VideoFile(path, frame.fps, frame.image.shape[:2])
        self.video.add(frame.image)

    def _close_video(self, keep: bool) -> None:
        if self.video is not None:
            self.video.close(keep)
        self.video = None

    def _stem(self, path: Path) -> str:
        """A name for the outputs of a file, the file's own unless another file has it."""
        stem, number = path.stem, 1
        while self.names.setdefault(stem, path) != path:
            number += 1
            stem = f"{path.stem}_{number}"
        return stem
