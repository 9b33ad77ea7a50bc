"""Predict with an exported model on images.

    python -m agent_attention.runtime detector.onnx photos/*.jpg --out drawn > found.jsonl

Prints a line of JSON for each image: its objects, or of a segmentor the share of each class. --out
gets the images with the predictions drawn in, and of a segmentor NAME.labels.png. Needs NumPy,
Pillow and ONNX Runtime (or OpenVINO).
"""

import argparse
import colorsys
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from agent_attention.runtime import Model, Result
from agent_attention.runtime.engines import ENGINES
from agent_attention.runtime.images import Array, RuntimeUserError, read_image


def main() -> None:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("agent-attention-run", None, __doc__, formatter_class=kind)
    add = parser.add_argument
    add("model", type=Path, help="a file of tools/export.py, .onnx")
    add("images", nargs="+", type=Path, metavar="IMAGE", help="a file that Pillow reads")
    add("--out", type=Path, metavar="DIR", help="draw the predictions, into this folder")
    text = "least score of objects (%(default)s)"
    add("--score-thr", type=float, default=0.3, metavar="X", help=text)
    add("--engine", choices=ENGINES, default="onnxruntime", help="what runs it (%(default)s)")
    text = "of the engine; 0: its own choice (%(default)s)"
    add("--threads", type=int, default=0, metavar="N", help=text)
    args = parser.parse_args()
    try:
        model = Model(args.model, args.engine, args.threads)
        if args.out:
            require_own_names(args.out, args.images)
    except RuntimeUserError as error:
        sys.exit(f"error: {error}")
    faults = 0
    for path in args.images:
        try:
            image = read_image(path)
            found = model(image, args.score_thr)
            if args.out:
                write_pictures(args.out / path.stem, image, found, model.palette)
            print(json.dumps({"image": str(path), **describe(found)}), flush=True)
        except (RuntimeUserError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            faults += 1
    sys.exit(bool(faults))


def require_own_names(folder: Path, images: list[Path]) -> None:
    """Raise RuntimeUserError if a picture would take the place of another one, or of an image."""
    stems: dict[str, Path] = {}
    for path in images:
        if stems.setdefault(path.stem, path) != path:
            raise RuntimeUserError(f"--out: {stems[path.stem]} and {path} have one name: run twice")
        if path.parent.resolve() == folder.resolve():
            raise RuntimeUserError(f"--out {folder}: {path} is there: name another folder")


def describe(found: Result) -> dict[str, Any]:
    """A result for JSON: objects with boxes, scores and names, or the share of each class."""
    if found.label_map is not None:
        labels, counts = np.unique(found.label_map, return_counts=True)
        shares = (counts / counts.sum()).round(6).tolist()
        return {"classes": {found.names[i]: n for i, n in zip(labels, shares, strict=True)}}
    assert found.boxes is not None and found.labels is not None and found.scores is not None
    boxes = found.boxes.astype(float).round(2).tolist()
    scores = found.scores.astype(float).round(4).tolist()
    names = [found.names[label] for label in found.labels]
    rows = zip(names, scores, boxes, strict=True)
    return {"objects": [{"name": name, "score": n, "box": box} for name, n, box in rows]}


def write_pictures(place: Path, image: Array, found: Result, palette: Array) -> None:
    """Write the image (H, W, 3) with what was found as PLACE.jpg, a label map as .labels.png."""
    colours = palette if len(palette) >= len(found.names) else make_colours(len(found.names))
    if found.label_map is not None:
        picture = Image.fromarray(image // 2 + colours[found.label_map] // 2)
        kind = np.uint8 if len(colours) <= 256 else np.uint16
        labels = Image.fromarray(found.label_map.astype(kind))
        if kind is np.uint8:
            labels.putpalette(colours.tobytes())
        save(labels, place.with_name(f"{place.name}.labels.png"), "PNG")
    else:
        picture = draw_objects(image, found, colours)
    save(picture, place.with_name(f"{place.name}.jpg"), "JPEG")


def make_colours(count: int) -> Array:
    """Colours (count, 3), uint8, neighbours of which differ."""
    hues = (colorsys.hsv_to_rgb(0.618 * i % 1, 0.8, 1) for i in range(count))
    return (255 * np.array([*hues])).astype(np.uint8)


def draw_objects(image: Array, found: Result, colours: Array) -> Image.Image:
    """The image with masks, boxes, names and scores; the surest on top."""
    assert found.boxes is not None and found.labels is not None and found.scores is not None
    pixels = image.copy()
    masks = [] if found.masks is None else [*zip(found.masks, found.labels, strict=True)]
    for mask, label in reversed(masks):
        pixels[mask] = pixels[mask] // 2 + colours[label] // 2
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
        pen.rectangle(box.tolist(), outline=tuple(colours[label].tolist()), width=2)
        words, corner = f"{found.names[label]} {score:.2f}", (box[0] + 3, box[1] + 1)
        pen.text(corner, words, "white", stroke_width=1, stroke_fill="black")
    return picture


def save(picture: Image.Image, path: Path, kind: str) -> None:
    """Write a picture atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        picture.save(part, kind)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
