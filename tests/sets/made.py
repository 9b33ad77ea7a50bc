"""Tiny sets in the forms of published ones, out of the demo's scenes.

Each function writes a set for the config that it goes with, where the config looks for it below
its data root.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import make_demo_data
import numpy as np
from mmdet.datasets import CityscapesDataset, LVISV1Dataset
from pycocotools.coco import COCO

SPLITS = ("train", "val")
Content = dict[str, Any]


def scenes(folder: Path) -> Iterator[tuple[str, Content, Path]]:
    """Split, content of its COCO file and folder of its images."""
    demo = folder.with_name("demo")
    if not demo.exists():
        make_demo_data.generate(demo, train=4, val=2, size=96)
    for split in SPLITS:
        path = demo / f"coco/annotations/instances_{split}2017.json"
        yield split, json.loads(path.read_text()), demo / f"coco/{split}2017"


def write(path: Path, content: Content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def copy_image(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == source.suffix:
        shutil.copy(source, target)
    else:
        cv2.imwrite(str(target), cv2.imread(str(source)))


def masks(content: Content, image: Content) -> list[tuple[Content, np.ndarray]]:
    """Annotations of an image with their masks (H, W), bool."""
    reader = COCO()
    reader.imgs = {image["id"]: image}
    notes = [note for note in content["annotations"] if note["image_id"] == image["id"]]
    return [(note, reader.annToMask(note).astype(bool)) for note in notes]


def panoptic(folder: Path) -> None:
    """COCO's: things, and the ground as the one class of stuff."""
    for split, content, images in scenes(folder):
        ground = 1 + max(each["id"] for each in content["categories"])
        categories = [{**each, "isthing": 1} for each in content["categories"]]
        categories.append({"id": ground, "name": "ground", "isthing": 0})
        place, notes = folder / f"annotations/panoptic_{split}2017", []
        place.mkdir(parents=True)
        for image in content["images"]:
            copy_image(images / image["file_name"], folder / f"{split}2017" / image["file_name"])
            ids, segments = np.full((image["height"], image["width"]), 70_000), [ground]
            for note, mask in masks(content, image):
                ids[mask] = 70_000 + len(segments)
                segments.append(note["category_id"])
            name = image["file_name"].replace(".jpg", ".png")
            bgr = np.stack([ids >> 16, ids >> 8 & 255, ids & 255], -1)
            cv2.imwrite(str(place / name), bgr.astype(np.uint8))
            infos = [segment(70_000 + i, kind, ids) for i, kind in enumerate(segments)]
            entry = {"image_id": image["id"], "file_name": name}
            notes.append({**entry, "segments_info": [each for each in infos if each["area"]]})
        whole = {"images": content["images"], "annotations": notes, "categories": categories}
        write(place.with_suffix(".json"), whole)


def segment(number: int, category: int, ids: np.ndarray) -> Content:
    rows, columns = np.nonzero(ids == number)
    box = [0, 0, 0, 0]
    if len(rows):
        sides = [int(np.ptp(each)) + 1 for each in (columns, rows)]
        box = [int(columns.min()), int(rows.min()), *sides]
    facts = {"area": len(rows), "bbox": box, "iscrowd": 0}
    return {"id": number, "category_id": category, **facts}


def lvis(folder: Path) -> None:
    """LVIS v1 with all its categories; the demo's are the first five."""
    names = LVISV1Dataset.METAINFO["classes"]
    for split, content, images in scenes(folder):
        for image in content["images"]:
            name = f"{split}2017/{image['file_name']}"
            copy_image(images / image["file_name"], folder / name)
            image["coco_url"] = f"http://images.cocodataset.org/{name}"
            image |= {"neg_category_ids": [6], "not_exhaustive_category_ids": []}
        notes = [note for note in content["annotations"] if not note["iscrowd"]]
        categories = [
            {"id": number, "name": name, "frequency": "fcr"[number % 3]}
            for number, name in enumerate(names, 1)
        ]
        whole = {**content, "annotations": notes, "categories": categories}
        write(folder / f"annotations/lvis_v1_{split}.json", whole)


def objects365(folder: Path, version: int) -> None:
    """Objects365 with the demo's classes; files lie in patches."""
    for split, content, images in scenes(folder):
        for image in content["images"]:
            name = f"patch0/{image['file_name']}"
            copy_image(images / image["file_name"], folder / split / name)
            image["file_name"] = f"images/v{version}/{name}" if version == 2 else name
        name = "zhiyuan_objv2" if version == 2 else "objects365"
        write(folder / f"annotations/{name}_{split}.json", content)


def v3det(folder: Path) -> None:
    """V3Det with the demo's classes, and its list of names."""
    for split, content, images in scenes(folder):
        for image in content["images"]:
            name = f"images/{split}/{image['file_name']}"
            copy_image(images / image["file_name"], folder / name)
            image["file_name"] = name
        write(folder / f"annotations/v3det_2023_v1_{split}.json", content)
        names = "".join(f"{each['name']}\n" for each in content["categories"])
        (folder / "annotations/category_name_13204_v3det_2023_v1.txt").write_text(names)


def cityscapes(folder: Path) -> None:
    """Cityscapes with its eight classes; the demo's are the first five."""
    ids = dict(zip(CITYSCAPES, (24, 25, 26, 27, 28, 31, 32, 33), strict=True))  # in labels.py
    for split, content, images in scenes(folder):
        for image in content["images"]:
            stem = f"demo/demo_{image['id']:06d}_000019_"
            source, image["file_name"] = images / image["file_name"], f"{stem}leftImg8bit.png"
            copy_image(source, folder / f"leftImg8bit/{split}" / image["file_name"])
            labels = np.zeros((image["height"], image["width"]), np.uint16)
            for place, (note, mask) in enumerate(masks(content, image)):
                labels[mask] = 1000 * ids[CITYSCAPES[note["category_id"] - 1]] + place
            truth = folder / f"gtFine/{split}/{stem}gtFine_instanceIds.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(truth), labels)
        categories = [{"id": i, "name": name} for i, name in enumerate(CITYSCAPES, 1)]
        name = f"annotations/instancesonly_filtered_gtFine_{split}.json"
        write(folder / name, {**content, "categories": categories})


CITYSCAPES = CityscapesDataset.METAINFO["classes"]
