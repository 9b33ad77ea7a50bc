"""Faults of data sets: ways to plant each kind, and tables of what is planted, by name."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data_sets import HEIGHT, WIDTH, ade_set, coco_set, compressed, picture, stripes
from PIL import Image

ROTATED = 6  # EXIF orientation: lies on its side
GONE = object()  # in place of a value: take the key away

Content = Any  # of a COCO file
Plant = Callable[[Content, Path], Content | None]


# ---- planting ----


def note(**changes: Any) -> Plant:
    """Change keys of the first annotation."""
    return lambda content, folder: change(content["annotations"][0], changes)


def rle(**changes: Any) -> Plant:
    """Change keys of the crowd's mask."""
    return lambda content, folder: change(content["annotations"][3]["segmentation"], changes)


def entry(part: str, **changes: Any) -> Plant:
    """Change keys of the first image or category."""
    return lambda content, folder: change(content[part][0], changes)


def change(target: dict[str, Any], changes: dict[str, Any]) -> None:
    target.update(changes)
    for key in [key for key, value in changes.items() if value is GONE]:
        del target[key]


def more(part: str, like: int = 0, **changes: Any) -> Plant:
    """Another entry, like one that is there."""

    def plant(content: Content, folder: Path) -> None:
        content[part].append({**copy.deepcopy(content[part][like]), **changes})

    return plant


def rewrite(name: str, function: Callable[[bytes], bytes]) -> Plant:
    """Change the bytes of a file."""

    def plant(content: Content, folder: Path) -> None:
        path = folder / name
        path.write_bytes(function(path.read_bytes()))

    return plant


def save(name: str, image: Image.Image, **options: Any) -> Plant:
    """Write another picture in place of a file."""

    def plant(content: Content, folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **options)

    return plant


def unlink(name: str) -> Plant:
    return lambda content, folder: (folder / name).unlink()


def rename(old: str, new: str) -> Plant:
    return lambda content, folder: (folder / old).rename(folder / new) and None


def replaced(content: Any) -> Plant:
    """Another content of the annotation file; text is written as it is."""
    return lambda _, folder: content


def without_lists(*names: str) -> Plant:
    return lambda content, folder: {key: content[key] for key in content if key not in names}


def emptied(*names: str) -> Plant:
    return lambda content, folder: {**content, **{name: [] for name in names}}


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def zeros(data: bytes) -> bytes:
    """Half a download into a file that was made at full size."""
    return half(data) + bytes(len(data) - len(data) // 2)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def both(*plants: Plant) -> Plant:
    def plant(content: Content, folder: Path) -> None:
        for each in plants:
            each(content, folder)

    return plant


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def thumbnail(data: bytes) -> bytes:
    """A JPEG with a small JPEG in an APP segment, cut after half of its own pixels."""
    small = io.BytesIO()
    picture(9, size=(16, 16)).save(small, "JPEG")
    inside = b"\xff\xe1" + (len(small.getvalue()) + 2).to_bytes(2, "big") + small.getvalue()
    return half(data[:2] + inside + data[2:])


NAN = float("nan")
LINE = [[1, 1, 9, 9, 5, 5]]  # a polygon without an area

COCO_FILES: dict[str, tuple[str, Plant]] = {
    "JSON cut short": ("json-syntax", lambda content, folder: json.dumps(content)[:-50]),
    "no JSON": ("json-syntax", replaced("hello")),
    "not text": ("json-syntax", replaced("\udcff\udcfe")),
    "a list": ("json-layout", replaced([])),
    "no categories": ("json-layout", without_lists("categories")),
    "images no list": ("json-layout", replaced({"images": 1, "annotations": [], "categories": []})),
    "nothing listed": ("set-empty", emptied("images", "annotations")),
}
COCO_ENTRIES: dict[str, tuple[str, Plant]] = {
    "no width": ("image-keys", entry("images", width=GONE)),
    "height as text": ("image-keys", entry("images", height="48")),
    "width 0": ("image-keys", entry("images", width=0)),
    "no file name": ("image-keys", entry("images", file_name=GONE)),
    "an image of text": ("image-keys", lambda content, _: content["images"].append("a.jpg")),
    "image id twice": (
        "image-id-twice",
        both(save("images/d.jpg", picture(4)), more("images", file_name="d.jpg")),
    ),
    "image entry twice": ("image-file-twice", more("images")),
    "image file twice": ("image-file-twice", more("images", id=99)),
    "image file twice, spelt otherwise": (
        "image-file-twice",
        more("images", id=99, file_name="more/../a.jpg"),
    ),
    "out of the folder": ("image-path", entry("images", file_name="../images/a.jpg")),
    "an absolute path": ("image-path", entry("images", file_name="/etc/hostname")),
    "missing": ("image-missing", unlink("images/a.jpg")),
    "a text for an image": ("image-unreadable", rewrite("images/a.jpg", lambda data: b"hello")),
    "a bit flipped in a PNG": ("image-unreadable", rewrite("images/b.png", flipped)),
    "half a JPEG": ("image-truncated", rewrite("images/a.jpg", half)),
    "half a JPEG, then zeros": ("image-truncated", rewrite("images/a.jpg", zeros)),
    "half a JPEG with a thumbnail": ("image-truncated", rewrite("images/a.jpg", thumbnail)),
    "the end of a JPEG": ("image-truncated", rewrite("images/a.jpg", lambda data: data[:-2])),
    "the start of a JPEG": ("image-unreadable", rewrite("images/a.jpg", lambda data: data[:90])),
    "half a PNG": ("image-truncated", rewrite("images/b.png", half)),
    "the end of a PNG": ("image-truncated", rewrite("images/b.png", lambda data: data[:-12])),
    "an empty file": ("image-truncated", rewrite("images/a.jpg", lambda data: b"")),
    "a format of its own": ("image-format", save("images/a.jpg", picture(0), format="PCX")),
    "width and height swapped": (
        "image-size",
        save("images/a.jpg", picture(0, size=(HEIGHT, WIDTH))),
    ),
    "sizes before EXIF's turn": (
        "image-size",
        save("images/a.jpg", picture(0), exif=exif(ROTATED)),
    ),
    "no category name": ("category-keys", entry("categories", name=GONE)),
    "category id twice": ("category-id-twice", more("categories", name="nut")),
    "category name twice": ("category-name-twice", more("categories", id=8)),
    "no image id": ("annotation-keys", note(image_id=GONE)),
    "annotation id as text": ("annotation-keys", note(id="1")),
    "no box": ("annotation-keys", note(bbox=GONE)),
    "an annotation of text": ("annotation-keys", lambda c, _: c["annotations"].append("fig")),
    "annotation id twice": ("annotation-id-twice", note(id=2)),
    "of no image": ("annotation-image", note(image_id=55)),
    "of no category": ("annotation-category", note(category_id=55)),
    "no iscrowd": ("iscrowd-missing", note(iscrowd=GONE)),
    "iscrowd 2": ("iscrowd", note(iscrowd=2)),
    "a box of three": ("box-length", note(bbox=[1, 2, 3])),
    "a box of nothing": ("box-length", note(bbox=None)),
    "NaN in a box": ("box-number", note(bbox=[1, NAN, 3, 4])),
    "text in a box": ("box-number", note(bbox=[1, "2", 3, 4])),
    "a number beyond floats in a box": ("box-number", note(bbox=[1, 10**400, 3, 4])),
    "a box of width 0": ("box-empty", note(bbox=[1, 2, 0, 4])),
    "a box of negative height": ("box-empty", note(bbox=[1, 2, 3, -4])),
    "a box beyond the right": ("box-outside", note(bbox=[50, 2, 20, 20])),
    "a box beyond the top": ("box-outside", note(bbox=[6, -5, 20, 31])),
    "no area": ("area-missing", note(area=GONE)),
    "area as text": ("area-type", note(area="400")),
    "area NaN": ("area-type", note(area=NAN)),
    "area 0": ("area-value", note(area=0)),
    "a mask of text": ("mask-type", note(segmentation="RLE")),
    "a polygon of a line": ("mask-empty", note(segmentation=LINE)),
    "an RLE of background": ("mask-empty", rle(counts=[WIDTH * HEIGHT])),
    "a polygon of seven": ("polygon-length", note(segmentation=[[1, 1, 9, 1, 9, 9, 5]])),
    "a polygon of two corners": ("polygon-length", note(segmentation=[[1, 1, 9, 9]])),
    "a polygon not in a list": ("mask-type", note(segmentation=[1, 1, 9, 1, 9, 9])),
    "NaN in a polygon": ("polygon-number", note(segmentation=[[1, 1, 9, NAN, 9, 9]])),
    "text in a polygon": ("polygon-number", note(segmentation=[[1, 1, 9, "1", 9, 9]])),
    "a polygon far outside": ("polygon-far", note(segmentation=[[1, 1, 9e5, 1, 9, 40]])),
    "a polygon outside": ("polygon-outside", note(segmentation=[[1, 1, 99, 1, 9, 40]])),
    "RLE size swapped": ("rle-size", rle(size=[WIDTH, HEIGHT])),
    "RLE without size": ("rle-size", rle(size=GONE)),
    "RLE too short": ("rle-counts", rle(counts=[10, 20])),
    "RLE with a negative run": ("rle-counts", rle(counts=[WIDTH * HEIGHT + 2, 4, -6])),
    "RLE without counts": ("rle-counts", rle(counts=GONE)),
    "RLE text cut short": ("rle-counts", rle(counts=compressed()["counts"][:-1])),
    "RLE text of other letters": ("rle-counts", rle(counts="é!")),
}
TRAIN = "images/training/scene.1.jpg"
LABEL = "annotations/training/scene.1.png"
DEEP = stripes() + np.uint16(300) * (stripes() == 3)
ADE: dict[str, tuple[str, Plant]] = {
    "no label map": ("label-missing", unlink(LABEL)),
    "no image": ("label-orphan", unlink(TRAIN)),
    "a label map as JPEG": ("label-suffix", rename(LABEL, LABEL.replace("png", "jpg"))),
    "a label map of text": ("label-unreadable", rewrite(LABEL, lambda data: b"hello")),
    "half a label map": ("label-truncated", rewrite(LABEL, lambda data: data[:-16])),
    "labels as colours": ("label-channels", save(LABEL, picture(1))),
    "labels with transparency": ("label-channels", save(LABEL, picture(1).convert("LA"))),
    "values of 16 bits": ("label-depth", save(LABEL, Image.fromarray(DEEP))),
    "labels of another size": ("label-size", save(LABEL, Image.fromarray(stripes()[1:]))),
    "an image turned by EXIF": ("label-size", save(TRAIN, picture(1), exif=exif(ROTATED))),
    "a class too many": ("label-range", save(LABEL, Image.fromarray(stripes() % 254 + 1))),
    "a text for an image": ("image-unreadable", rewrite(TRAIN, lambda data: b"hello")),
    "half an image": ("image-truncated", rewrite(TRAIN, half)),
    "another ending": ("image-suffix", rename(TRAIN, TRAIN.replace("jpg", "JPG"))),
    "a link to nothing": (
        "image-missing",
        both(unlink(TRAIN), lambda _, folder: (folder / TRAIN).symlink_to("nowhere")),
    ),
}
WARNINGS: dict[str, tuple[str, Plant]] = {
    "an image without objects": (
        "image-bare",
        both(save("images/d.jpg", picture(4)), more("images", id=9, file_name="d.jpg")),
    ),
    "a category of nothing": ("category-unused", more("categories", id=9, name="nut")),
    "an object twice": ("annotation-twice", more("annotations", id=99)),
    "a box below a pixel": ("box-tiny", note(bbox=[5, 5, 0.5, 9])),
    "corners for a box": ("box-off-mask", note(bbox=[6, 6, 56, 40])),
    "no mask": ("mask-missing", note(segmentation=[])),
    "an image on its head": ("image-rotated", save("images/a.jpg", picture(0), exif=exif(3))),
}


def plant_coco(name: str, folder: Path) -> str:
    """Make a COCO-like set in ``folder`` with one fault or warning of the tables; its kind."""
    kind, plant = {**COCO_FILES, **COCO_ENTRIES, **WARNINGS}[name]
    ann = coco_set(folder)
    content = json.loads(ann.read_text())
    new = plant(content, folder)
    content = content if new is None else new
    written = content if isinstance(content, str) else json.dumps(content)
    ann.write_bytes(written.encode("utf-8", "surrogateescape"))
    return kind


def plant_ade(name: str, folder: Path) -> str:
    """Make an ADE20K-like set in ``folder`` with one fault of ``ADE``; its kind."""
    kind, plant = ADE[name]
    ade_set(folder)
    plant(None, folder)
    return kind
