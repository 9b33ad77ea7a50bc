"""Writing COCO files: of a set in another format, and of the parts of one that is split."""

import json
from pathlib import Path
from typing import Any

import cv2

from mmdet_agent.data.coco import has_id
from mmdet_agent.data.read import read_coco
from mmdet_agent.data.shapes import bounds, polygon_area
from mmengine_agent.data.convert import Source
from mmengine_agent.data.formats.records import Shape, mask_of
from mmengine_agent.data.split import choose_val
from mmengine_agent.errors import UserError


def write_set(source: Source, folder: Path, background: str | None = None) -> list[str]:
    """Write a JSON file a split into a folder; a line on each.

    Raises:
        UserError: if an image is not below the set's root, or a background is named.
    """
    if background:
        raise UserError("--background is for --to ade20k: COCO has no pixels of no object")
    numbers = {name: number for number, name in enumerate(source.names, 1)}
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    lines = []
    for split in source.splits:
        images: list[dict[str, Any]] = []
        notes: list[dict[str, Any]] = []
        for picture in (each for each in source.pictures if split in each.splits):
            number, (width, height) = len(images) + 1, picture.size
            name = source.file_name(picture)
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            for shape in picture.shapes:
                ids = {"image_id": number, "category_id": numbers[shape.name]}
                notes.append({"id": len(notes) + 1, **ids, **_annotation(shape)})
        content = {"images": images, "annotations": notes, "categories": categories}
        lines.append(_write(folder / f"{split}.json", content))
    return lines


def split_set(path: Path, folder: Path, share: float, seed: int, group_by: str | None) -> list[str]:
    """Write ``train.json`` and ``val.json`` of a COCO file into a folder; a line on each.

    Raises:
        UserError: if the file is none, or cannot be split.
    """
    content, faults = read_coco(path)
    if content is None or faults:
        raise UserError("; ".join(f"{each.place}: {each.message}" for each in faults))
    images = [each for each in content["images"] if has_id(each)]
    known = {each["id"] for each in images}
    if len(known) < len(content["images"]):
        raise UserError(f"{path}: images without an id of their own; see prepare_data.py check")
    chosen = choose_val((str(each.get("file_name")) for each in images), share, seed, group_by)
    every = [each for each in content["annotations"] if isinstance(each, dict)]
    notes = [each for each in every if each.get("image_id") in known]
    lost = len(content["annotations"]) - len(notes)
    lines = [f"left out: {lost} annotations of images that are not listed"] * bool(lost)
    for part in ("train", "val"):
        kept = [e for e in images if (str(e.get("file_name")) in chosen) == (part == "val")]
        ids = {each["id"] for each in kept}
        own = {"images": kept, "annotations": [n for n in notes if n["image_id"] in ids]}
        lines.append(_write(folder / f"{part}.json", {**content, **own}))
    return lines


def _annotation(shape: Shape) -> dict[str, Any]:
    """An object as COCO has it, without ids."""
    box = shape.box
    if shape.mask:
        inside = mask_of(shape.mask)
        area, box = float(inside.sum()), [*map(float, cv2.boundingRect(inside.astype("uint8")))]
    elif shape.polygons:
        area, box = sum(map(polygon_area, shape.polygons)), box or bounds(shape.polygons)
    else:
        assert box is not None
        area = box[2] * box[3]
    found = {"bbox": box, "area": area, "iscrowd": int(shape.crowd)}
    found["segmentation"] = shape.mask or shape.polygons
    return {**found, "attributes": shape.attributes} if shape.attributes else found


def _write(path: Path, content: dict[str, Any]) -> str:
    path.write_text(json.dumps(content) + "\n")
    return f"{path.name}: {len(content['images'])} images, {len(content['annotations'])} objects"
