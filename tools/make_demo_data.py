"""Make a small data set of drawn scenes, written as COCO files and as ADE20K files.

Every scene has a background of one to three regions (grass, sand, water) and up to six shapes
(ellipse, rectangle, triangle, star, cross) that may hide parts of each other. Both sets show
the same scenes, so an instance segmenter and a semantic segmenter can learn on the same pictures:

    OUT/demo.json                                   the arguments it was made with
    OUT/coco/{train,val}2017/000000000001.jpg       pictures
    OUT/coco/annotations/instances_{train,val}2017.json
    OUT/coco/classes.txt                            the 5 shapes, in the order of their ids 1..5
    OUT/ade/images/{training,validation}/*.jpg      the same pictures
    OUT/ade/annotations/{training,validation}/*.png labels: 0 = ignore, 1..8 = classes
    OUT/ade/classes.txt                             the 8 classes, in the order of labels 1..8

A scene depends on the seed, its split and its number only: a larger set begins with the scenes
of a smaller one. ``demo_scenes.py`` draws them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
from demo_scenes import CLASSES, DEMO, THINGS, Array, Layout, make_scene
from tqdm import tqdm

from mmengine_agent.files import atomic_folder

NAME, VERSION = "make_demo_data", 1  # raise VERSION whenever the same arguments draw other scenes
LEAST = {"train": 1, "val": 1, "size": 32, "seed": 0, "things": 1}
SPLITS = (("train", "training"), ("val", "validation"))  # COCO's and ADE20K's words for a split

COCO_HEAD: dict[str, Any] = {
    "info": {"description": f"drawn scenes by {NAME}", "version": str(VERSION)},
    "licenses": [{"id": 1, "name": "none: generated pictures", "url": ""}],
    "categories": [
        {"id": number, "name": name, "supercategory": "shape"}
        for number, name in enumerate(THINGS, 1)
    ],
}


def save(path: Path, pixels: Array, *options: int) -> None:
    """Write (H, W) or (H, W, 3) RGB uint8 pixels in the format that path's ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    path.write_bytes(cv2.imencode(path.suffix, stored, options)[1].tobytes())


def write_split(
    out: Path, split: int, count: int, size: int, seed: int, layout: Layout = DEMO
) -> None:
    """Write all files of one split, both as COCO and as ADE20K."""
    coco, ade = SPLITS[split]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in tqdm(range(count), desc=f"{coco:5}", unit="scene", mininterval=0.5, disable=None):
        picture, labels, found = make_scene(size, (seed, split, index), layout)
        number = index + 1
        name, stem = f"{number:012}.jpg", f"ADE_{coco}_{number:08}"
        for copy in (f"coco/{coco}2017/{name}", f"ade/images/{ade}/{stem}.jpg"):
            save(out / copy, picture, cv2.IMWRITE_JPEG_QUALITY, 95)
        save(out / f"ade/annotations/{ade}/{stem}.png", labels)
        height, width = labels.shape
        entry = {"file_name": name, "width": width, "height": height, "license": 1}
        images.append({"id": number, **entry})
        for note in found:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **note})
    content = {**COCO_HEAD, "images": images, "annotations": annotations}
    path = out / f"coco/annotations/instances_{coco}2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content) + "\n")


def generate(
    out: Path,
    train: int = 400,
    val: int = 80,
    size: int = 160,
    seed: int = 0,
    force: bool = False,
    layout: Layout = DEMO,
) -> None:
    """Make the data set at out, unless it is there; force replaces an older one.

    Raises FileExistsError if something else is there.
    """
    arguments: dict[str, Any] = {"train": train, "val": val, "size": size, "seed": seed}
    if layout != DEMO:
        arguments.update(asdict(layout))
    stamp = json.dumps({"generator": NAME, "version": VERSION, **arguments}) + "\n"
    made = out / "demo.json"
    old = made.read_text(errors="replace") if made.is_file() else ""
    if out.exists() and f'"generator": "{NAME}"' not in old:
        raise FileExistsError(
            f"{out} exists and was not made by this tool, so it stays, even with --force; "
            "choose another OUT"
        )
    if old and not force:
        if old != stamp:
            raise FileExistsError(f"{out} holds another demo set; --force replaces it: {old}")
        print(f"{out}: already there")
        return
    with atomic_folder(out) as new:
        for split, count in enumerate((train, val)):
            write_split(new, split, count, size, seed, layout)
        (new / "coco/classes.txt").write_text("\n".join(THINGS) + "\n")
        (new / "ade/classes.txt").write_text("\n".join(CLASSES) + "\n")
        (new / "demo.json").write_text(stamp)
    print(f"{out}: {train} training and {val} validation scenes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Make a small data set of drawn scenes, as COCO and as ADE20K files.",
        epilog="example: python tools/make_demo_data.py data/demo --train 400 --val 80",
    )
    add = parser.add_argument
    add("out", nargs="?", type=Path, default=Path("data/demo"), help="folder (default: data/demo)")
    add("--train", type=int, default=400, help="training scenes (default: 400)")
    add("--val", type=int, default=80, help="validation scenes (default: 80)")
    add("--size", type=int, default=160, help="longer side in pixels (default: 160)")
    add("--seed", type=int, default=0, help="another seed draws other scenes (default: 0)")
    parts: dict[str, Any] = {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH")}
    text = "a shape's longest side as a part of the scene's longer side (default: 0.16 0.5)"
    add("--extent", default=DEMO.extent, help=text, **parts)
    text = "a scene's shorter side as a part of its longer one (default: 0.75 1)"
    add("--shorter", default=DEMO.shorter, help=text, **parts)
    add("--things", type=int, default=DEMO.things, help="shapes of a scene, at most (default: 5)")
    add("--force", action="store_true", help="replace a demo set that is at OUT")
    args = parser.parse_args(argv)
    for name, least in LEAST.items():
        if getattr(args, name) < least:
            parser.error(f"--{name} must be at least {least}, not {getattr(args, name)}")
    for name in ("extent", "shorter"):
        low, high = getattr(args, name)
        if not 0 < low <= high <= 1:
            parser.error(f"--{name} must be LOW HIGH with 0 < LOW <= HIGH <= 1, not {low} {high}")
    layout = Layout(tuple(args.extent), tuple(args.shorter), args.things)
    try:
        generate(args.out, args.train, args.val, args.size, args.seed, args.force, layout)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
