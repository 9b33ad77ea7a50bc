"""One small set, written in the forms of YOLO, Pascal VOC, LabelMe and CVAT."""

import json
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

NAMES = ("traffic light", "car & cab", "tree")  # neither sorted nor plain
WIDTH, HEIGHT = 100, 80
SPLITS = {"a": "train", "b": "train", "c": "val"}


class Thing(NamedTuple):
    """An object: its class, and its parts or its box [x, y, width, height]."""

    name: str
    parts: tuple[tuple[float, ...], ...] = ()
    box: tuple[float, ...] = ()


SQUARE = (10.0, 20.0, 30.0, 20.0, 30.0, 44.0, 10.0, 44.0)
ARROW = (50.25, 8.0, 70.5, 30.0, 50.25, 60.75)
POLYGONS: dict[str, list[Thing]] = {
    "a": [Thing("tree", (SQUARE,)), Thing("car & cab", (ARROW,))],
    "b": [],
    "c": [Thing("traffic light", (ARROW,)), Thing("tree", (SQUARE,))],
}
PARTS = {**POLYGONS, "c": [Thing("tree", (SQUARE, ARROW)), Thing("tree", (ARROW,))]}
BOXES = {
    "a": [Thing("tree", box=(10.0, 20.0, 20.0, 24.5)), Thing("car & cab", box=(0.0, 0.0, 100, 80))],
    "b": [],
    "c": [Thing("traffic light", box=(50.25, 8.0, 20.25, 52.75))],
}
Things = dict[str, list[Thing]]


def corners(thing: Thing) -> tuple[float, ...]:
    x, y, width, height = thing.box
    return x, y, x + width, y + height


def write_images(folder: Path, by_split: bool = False) -> None:
    for name, split in SPLITS.items():
        path = folder / (split if by_split else "") / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)


def write_yolo(root: Path, things: Things) -> None:
    write_images(root / "images", by_split=True)
    for name, split in SPLITS.items():
        lines = []
        for thing in things[name]:
            values = list(*thing.parts)
            if thing.box:
                x, y, width, height = thing.box
                values = [x + width / 2, y + height / 2, width, height]
            fractions = [f"{v / (WIDTH, HEIGHT)[i % 2]:.6f}" for i, v in enumerate(values)]
            lines.append(" ".join([str(NAMES.index(thing.name)), *fractions]))
        path = root / "labels" / split / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*lines, ""]))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(NAMES))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")


def write_voc(root: Path, things: Things) -> None:
    write_images(root / "JPEGImages")
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for name, split in SPLITS.items():
        with (root / f"ImageSets/Main/{split}.txt").open("a") as file:
            file.write(f"{name}\n")
        objects = "".join(
            f"\n<object><name>{thing.name.replace('&', '&amp;')}</name><bndbox>"
            + "".join(
                f"<{tag}>{value}</{tag}>"
                for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners(thing), strict=True)
            )
            + "</bndbox></object>"
            for thing in things[name]
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        text = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
        (root / f"Annotations/{name}.xml").write_text(text)


def write_labelme(root: Path, things: Things) -> None:
    write_images(root)
    for name in SPLITS:
        shapes = []
        for number, thing in enumerate(things[name]):
            outlines = thing.parts or (corners(thing),)
            for outline in outlines:
                points = np.reshape(outline, (-1, 2)).tolist()
                kind = "polygon" if thing.parts else "rectangle"
                group = number if len(outlines) > 1 else None
                shape = {"label": thing.name, "points": points, "shape_type": kind}
                shapes.append({**shape, "group_id": group, "flags": {}})
        content = {"shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
        content |= {"imageWidth": WIDTH, "imageHeight": HEIGHT}
        (root / f"{name}.json").write_text(json.dumps(content))


def write_cvat(root: Path, things: Things) -> None:
    write_images(root / "images")
    labels = "".join(f"<label><name>{each.replace('&', '&amp;')}</name></label>" for each in NAMES)
    lines = [f"<annotations><meta><task><labels>{labels}</labels></task></meta>"]
    for number, (name, split) in enumerate(SPLITS.items()):
        size = f"width='{WIDTH}' height='{HEIGHT}'"
        lines.append(f"<image id='{number}' name='{name}.jpg' subset='{split}' {size}>")
        for group, thing in enumerate(things[name], 1):
            label = f"label={quoteattr(thing.name)} z_order='0'"
            label += f" group_id='{group}'" if len(thing.parts) > 1 else ""
            for part in thing.parts:
                points = ";".join(f"{x},{y}" for x, y in np.reshape(part, (-1, 2)))
                lines.append(f"<polygon {label} points='{points}'></polygon>")
            if thing.box:
                keys = zip(("xtl", "ytl", "xbr", "ybr"), corners(thing), strict=True)
                ends = " ".join(f"{key}='{value}'" for key, value in keys)
                lines.append(f"<box {label} {ends}></box>")
        lines.append("</image>")
    (root / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))


WRITERS = {"yolo": write_yolo, "voc": write_voc, "labelme": write_labelme, "cvat": write_cvat}
