"""Small data sets without faults, of both kinds, and the check run on one of them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from agent_toolkit.commands import data as prepare_data

WIDTH, HEIGHT = 64, 48


# ---- sets without faults ----


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Noise, which compresses badly: half of the file is half of the picture."""
    shape = (size[1], size[0], 3)
    noise = np.random.RandomState(seed).randint(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def crowd() -> dict[str, Any]:
    """An RLE of the lower right quarter, as lists."""
    rows = [0] * (HEIGHT // 2) + [1] * (HEIGHT // 2)
    columns = [0] * HEIGHT * (WIDTH // 2) + rows * (WIDTH // 2)
    counts, last = [0], 0
    for pixel in columns:
        if pixel != last:
            counts.append(0)
            last = pixel
        counts[-1] += 1
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def compressed() -> dict[str, Any]:
    """The same as text."""
    rle = coco_mask.frPyObjects(crowd(), HEIGHT, WIDTH)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def square(number: int, image: int, category: int, **changes: Any) -> dict[str, Any]:
    x, y = 4.0 + 2 * number, 6.0
    polygon = [x, y, x + 20, y, x + 20, y + 20, x, y + 20]
    note = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
    shape = {"bbox": [x, y, 20.0, 20.0], "area": 400.0, "segmentation": [polygon]}
    return {**note, **shape, **changes}


def coco_set(folder: Path) -> Path:
    """A set of three images and five objects, in ``folder``; the annotation file."""
    (folder / "images/more").mkdir(parents=True)
    names = ("a.jpg", "b.png", "more/c.jpg")
    for seed, name in enumerate(names):
        picture(seed).save(folder / "images" / name)
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(names)  # ids from 0 are as good as from 1
    ]
    quarter = [WIDTH / 2, HEIGHT / 2, WIDTH / 2, HEIGHT / 2]
    far = {"bbox": quarter, "area": WIDTH * HEIGHT / 4, "iscrowd": 1}
    notes = [
        square(1, 0, 3),
        square(2, 0, 7),
        square(3, 1, 3),
        square(4, 2, 7, **far, segmentation=crowd()),
        square(5, 1, 7, **far, segmentation=compressed()),
    ]
    categories = [{"id": 3, "name": "fig"}, {"id": 7, "name": "date"}]
    content = {"images": images, "annotations": notes, "categories": categories}
    (folder / "all.json").write_text(json.dumps(content))
    return folder / "all.json"


def ade_set(folder: Path) -> None:
    """Two splits in the standard layout: plain labels and palettes, classes 1..3."""
    for split in ("training", "validation"):
        for number in range(3):
            name = folder / "images" / split / f"scene.{number}"
            label = folder / "annotations" / split / f"scene.{number}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(f"{name}.jpg")
            save_label(label, stripes(), palette=number == 0)


def stripes() -> np.ndarray:
    """Labels (HEIGHT, WIDTH) 0..3 and 255."""
    return np.tile(np.array([0, 1, 2, 3, 3, 255, 1, 2], np.uint8), (HEIGHT, WIDTH // 8))


def save_label(path: Path, values: np.ndarray, palette: bool = False) -> None:
    image = Image.fromarray(values)
    if palette:
        image.putpalette(list(range(255, -1, -1)) * 3)  # colours that are not the labels
    image.save(path)


# ---- running the check ----


@dataclass(frozen=True)
class Checked:
    code: int
    faults: set[str]
    warnings: set[str]
    report: dict[str, Any]


def check(folder: Path, *arguments: str) -> Checked:
    report = folder / "report.json"
    with pytest.raises(SystemExit) as ended:
        prepare_data.main(["check", *arguments, "--report", str(report)])
    content = json.loads(report.read_text())
    faults, warnings = (
        {each["kind"] for found in content["sets"] for each in found[level]}
        for level in ("faults", "warnings")
    )
    return Checked(int(str(ended.value.code)), faults, warnings, content)


def check_coco(folder: Path, *more: str, ann: str = "all.json") -> Checked:
    where = ("--root", str(folder), "--ann", ann, "--images", "images")
    return check(folder, "--format", "coco", *where, *more)


def check_ade(folder: Path, *more: str) -> Checked:
    return check(folder, "--format", "ade20k", "--root", str(folder), "--classes", "3", *more)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
