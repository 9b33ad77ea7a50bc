"""Run the ONNX files of ``tools/export.py`` on NumPy, Pillow and ONNX Runtime, without torch.

    from agent_attention.runtime import Model

    model = Model("detector.onnx")
    found = model("photo.jpg")                     # a list of images gives a list
    print(found.boxes, found.scores, found.names)  # found.label_map of a segmentor

What has to be known of a model stands in its file. ``python -m agent_attention.runtime`` is a
command. Arrays of images are (H, W, 3), uint8, RGB.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from agent_attention.runtime.engines import ENGINES
from agent_attention.runtime.images import (
    Array,
    Picture,
    RuntimeUserError,
    label_map,
    read_image,
    resize,
)

__all__ = ["Model", "Result", "RuntimeUserError"]


@dataclass(frozen=True)
class Result:
    """What a model says of an image of H x W pixels; None is what it does not predict.

    Attributes:
        names: class names, by label.
        boxes: (N, 4) float32, x1, y1, x2, y2 in pixels, the surest first.
        scores: (N,) float32.
        labels: (N,) int64, from 0.
        masks: (N, H, W) bool.
        label_map: (H, W) int64, from 0.
    """

    names: tuple[str, ...]
    boxes: Array | None = None
    scores: Array | None = None
    labels: Array | None = None
    masks: Array | None = None
    label_map: Array | None = None


class Model:
    """An exported model.

    Args:
        path: an ONNX file of ``tools/export.py``.
        engine: 'onnxruntime' or 'openvino', whichever is installed.
        threads: of the engine; 0 leaves it the choice.
        batch_size: most images of one size that go through the model together, where it takes more
            than one.

    Attributes:
        names: class names, by label.
        palette: (classes, 3) uint8, their colours.
        facts: the metadata of the file.

    Raises:
        RuntimeUserError: if the file cannot be loaded, or does not go from images to results.
    """

    def __init__(
        self, path: str | Path, engine: str = "onnxruntime", threads: int = 0, batch_size: int = 8
    ) -> None:
        if not Path(path).is_file():
            raise RuntimeUserError(f"there is no file {path} (from {Path.cwd()})")
        try:
            self._run, self.facts, outputs = ENGINES[engine](str(path), threads)
        except ImportError as error:
            raise RuntimeUserError(f"{error}: pip install {engine}") from error
        except Exception as error:  # engines have their own kinds
            raise RuntimeUserError(f"{path}: {engine} cannot load it: {error}") from error
        given = self.facts.get("input", "")
        if not self.facts.get("task") or not {"labels", "logits", "probabilities"} & {*outputs}:
            raise RuntimeUserError(f"{path}: no whole model of this version's tools/export.py")
        if given.startswith("normalised"):
            raise RuntimeUserError(f"{path}: takes {given}: export with --input rgb")
        self.names = tuple(json.loads(self.facts["classes"]))
        self.palette = np.array(json.loads(self.facts["palette"]), np.uint8).reshape(-1, 3)
        self._bgr = given.startswith("BGR")
        self._resizes = self.facts["with_resize"] == "true"
        self._test_size: dict[str, Any] = json.loads(self.facts["test_size"]) or {}
        self._batch_size = batch_size if self.facts["batch"] == "any" else 1

    @overload
    def __call__(self, images: Picture, score_threshold: float = ...) -> Result: ...

    @overload
    def __call__(
        self, images: list[Any] | tuple[Any, ...], score_threshold: float = ...
    ) -> list[Result]: ...

    def __call__(self, images: Any, score_threshold: float = 0.3) -> Any:
        """Predict on an image or a list of them.

        Args:
            images: files, PIL images or arrays (H, W, 3) uint8 RGB.
            score_threshold: least score of objects.

        Raises:
            RuntimeUserError: if an image cannot be read.
        """
        if not isinstance(images, list | tuple):
            return self([images], score_threshold)[0]
        pixels = [read_image(each) for each in images]
        inputs = [self.prepare(each) for each in pixels]
        order = sorted(range(len(inputs)), key=lambda place: inputs[place].shape)
        results: dict[int, Result] = {}
        while order:
            shape = inputs[order[0]].shape
            some = [place for place in order[: self._batch_size] if inputs[place].shape == shape]
            del order[: len(some)]
            outputs = self._run(np.stack([inputs[place] for place in some]))
            for row, place in enumerate(some):
                of_one = {name: value[row] for name, value in outputs.items()}
                results[place] = self._result(of_one, pixels[place], shape, score_threshold)
        return [results[place] for place in range(len(pixels))]

    def prepare(self, image: Array) -> Array:
        """What the model takes of an image (H, W, 3): (3, H', W') float32, or with resizing it."""
        image = image[..., ::-1] if self._bgr else image
        if self._resizes:
            return image
        height, width = image.shape[:2]
        size = self._test_size.get("scale") or (width, height)
        if self._test_size.get("keep_ratio"):
            factor = min(max(size) / max(height, width), min(size) / min(height, width))
            size = (max(1, int(side * factor + 0.5)) for side in (width, height))
        return resize(image, *size).transpose(2, 0, 1).astype(np.float32)

    def _result(
        self, outputs: Mapping[str, Array], image: Array, seen: tuple[int, ...], threshold: float
    ) -> Result:
        """The result of an image (H, W, 3) that the model has seen as (3, H', W')."""
        height, width = image.shape[:2]
        if "boxes" not in outputs:
            labels = label_map(outputs, width, height)
            return Result(self._names_for(labels), label_map=labels)
        keep = (outputs["labels"] >= 0) & (outputs["scores"] >= threshold)
        boxes, scores, labels = (outputs[name][keep] for name in ("boxes", "scores", "labels"))
        if not self._resizes:
            boxes = boxes * np.array([width / seen[2], height / seen[1]] * 2, np.float32)
        masks = outputs["masks"][keep] if "masks" in outputs else None
        if masks is not None and masks.shape[1:] != (height, width):
            floats = (mask[..., None].astype(np.float32) for mask in masks)
            full = [resize(mask, width, height)[..., 0] >= 0.5 for mask in floats]
            masks = np.array(full, bool).reshape(-1, height, width)
        return Result(self._names_for(labels), boxes, scores, labels, masks)

    def _names_for(self, labels: Array) -> tuple[str, ...]:
        """A name for each label, which is its number where the file has no name."""
        last = int(labels.max(initial=-1))
        return self.names + tuple(map(str, range(len(self.names), last + 1)))
