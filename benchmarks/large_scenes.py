"""Large images whole against tiles: score, seconds and memory on generated scenes.

    python tools/make_demo_data.py && python tools/train.py configs/demo/CONFIG.py
    python benchmarks/large_scenes.py configs/demo/CONFIG.py CHECKPOINT --cells 18x32

The image is a mosaic of scenes of 120 pixels, cut from the demo's of 160, so that things have the
size that they had in training: 18x32 cells are 2160 x 3840 pixels. ``tools/predict.py`` predicts it
in tiles of some sizes (overlap: an eighth) and, with --max-memory, as a whole. A detector may find
as many objects and regions as there are cells times those of one image. Writes
DIR/large_scenes.json with mIoU, or AP of boxes and masks.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import reporting
from candidates import at_least
from mixers import size as read_hw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_agent.predict.instances import Mask, code_of_image, encode
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import read_config

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import demo_scenes as scenes  # noqa: E402  (of the tools, which are no package)

SCENE, CELL = 160, 120  # pixels: of a scene's longer side, and what is kept; its shorter has 120
LEAST_AREA = scenes.MIN_PIXELS  # of what is left of an object where its scene is cut
PER_CELL = {"rpn": 200, "rcnn": 20}  # regions and objects that a detector may find
Array = np.ndarray
Found = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("config")
    add("checkpoint")
    add("--cells", type=cells, default=(9, 16), metavar="HxW", help="scenes; default: 9x16")
    add("--tiles", type=at_least(32), nargs="*", default=[160, 480], metavar="SIZE")
    add("--max-memory", default="16GB", metavar="SIZE", help="for the whole image; %(default)s")
    add("--threads", type=at_least(1), help="CPU threads of torch")
    add("--out", default="work_dirs/benchmarks/large_scenes", metavar="DIR", help="%(default)s")
    args = parser.parse_args()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    picture, labels, objects = mosaic(args.cells)
    image = out / "scene.png"
    cv2.imwrite(str(image), picture[..., ::-1])
    cfg = read_config(args.config)
    is_detector = cfg.get("default_scope") != "mmseg"
    rows = {f"tiles of {size}": ["--tile", str(size)] for size in args.tiles}
    rows["whole"] = ["--max-memory", args.max_memory]
    found: dict[str, Found] = {}
    for name, flags in rows.items():
        reporting.say(f"{picture.shape[0]} x {picture.shape[1]} pixels, {name} ...")
        if is_detector:
            flags = [*flags, "--cfg-options", *more_objects(args.cells[0] * args.cells[1])]
            if "--tile" in flags:  # which the demo would resize to its scenes' size
                flags.append(f"test_dataloader.dataset.pipeline.1.scale={(int(flags[1]),) * 2}")
        found[name] = run(args, image, flags, out / "predictions")
        if is_detector:
            results = json.loads((out / "predictions/predictions.json").read_text())
            found[name] |= score_objects(results, objects, picture.shape[:2])
        else:
            path = str(out / "predictions/labels/scene.png")
            found[name] |= score_labels(cv2.imread(path, cv2.IMREAD_UNCHANGED), labels)
        head = {**reporting.header(), "size": picture.shape[:2], "objects": len(objects)}
        reporting.write_json(out / "large_scenes.json", {**head, "found": found})
    titles = list(found["whole"])
    rows_ = [[name, *(f"{each[key]:.3f}" for key in titles)] for name, each in found.items()]
    print(reporting.table(("image", *titles), rows_))
    print(f"written: {out / 'large_scenes.json'}")


def cells(text: str) -> tuple[int, int]:
    """Type of a flag: '9x16' is (9, 16)."""
    height, width = read_hw("x".join(str(CELL * int(part)) for part in text.split("x")))
    return height // CELL, width // CELL


def mosaic(shape: tuple[int, int]) -> tuple[Array, Array, list[dict[str, Any]]]:
    """A picture (H, W, 3) RGB of so many rows and columns of scenes, its labels (H, W), objects."""
    size = CELL * shape[0], CELL * shape[1]
    picture, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    objects: list[dict[str, Any]] = []
    for number in range(shape[0] * shape[1]):
        top, left = (CELL * place for place in divmod(number, shape[1]))
        part, own, notes = scenes.make_scene(SCENE, (0, 2, number))  # of no split of the demo
        picture[top : top + CELL, left : left + CELL] = part[:CELL, :CELL]
        labels[top : top + CELL, left : left + CELL] = own[:CELL, :CELL]
        for note in notes:
            mask = decode(note["segmentation"], own.shape)[:CELL, :CELL]
            if mask.sum() < LEAST_AREA:
                continue
            code = code_of_image(Mask(top, left, encode(mask)), size)
            box = coco_mask.toBbox(code).tolist()
            more = {"segmentation": code, "bbox": box, "area": int(mask.sum())}
            objects.append({**note, **more, "id": len(objects) + 1, "image_id": 1})
    return picture, labels, objects


def decode(segmentation: Any, shape: tuple[int, ...]) -> Array:
    """The mask (H, W) of COCO's polygons or code."""
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, *shape))
    return coco_mask.decode(segmentation)


def more_objects(count: int) -> list[str]:
    """Settings by which a two-stage detector may find the objects of so many scenes."""
    regions, objects = (PER_CELL[part] * count for part in ("rpn", "rcnn"))
    rpn = [f"model.test_cfg.rpn.{key}={regions}" for key in ("nms_pre", "max_per_img")]
    return [*rpn, f"model.test_cfg.rcnn.max_per_img={objects}"]


def run(args: argparse.Namespace, image: Path, flags: list[str], out: Path) -> Found:
    """Run ``tools/predict.py``: seconds and peak memory of the process.

    Raises:
        SystemExit: if it fails.
    """
    tool = [sys.executable, "-W", "ignore", str(ROOT / "tools/predict.py")]
    words = [args.config, args.checkpoint, str(image), "--out", str(out), "--no-draw"]
    words += ["--device", "cpu", "--score-thr", "0.05", *flags]
    threads = {"OMP_NUM_THREADS": str(args.threads)} if args.threads else {}
    start = time.perf_counter()
    process = subprocess.Popen([*tool, *words], env={**os.environ, **threads})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(os.waitstatus_to_exitcode(status))
    return {"seconds": time.perf_counter() - start, "peak GB": usage.ru_maxrss * 1024 / 1e9}


def score_labels(found: Array | None, truth: Array) -> Found:
    """mIoU of label maps from 1; 0 is ignored."""
    assert found is not None
    count = len(scenes.CLASSES) + 1
    pairs = np.bincount((count * truth.astype(int) + found)[truth > 0], minlength=count**2)
    table = pairs.reshape(count, count)[1:, 1:]
    hits = table.diagonal()
    union = table.sum(0) + table.sum(1) - hits
    return {"mIoU": float((hits[union > 0] / union[union > 0]).mean())}


def score_objects(found: list[Any], truth: list[Any], size: tuple[int, int]) -> Found:
    """AP of boxes and masks, of as many objects as are found."""
    coco = COCO()
    categories = [{"id": i, "name": name} for i, name in enumerate(scenes.THINGS, 1)]
    images = [{"id": 1, "height": size[0], "width": size[1]}]
    coco.dataset = {"info": {}, "images": images, "annotations": truth, "categories": categories}
    scores: Found = {"found": len(found)}
    with redirect_stdout(StringIO()):  # pycocotools says what it does
        coco.createIndex()
        results = coco.loadRes(found)
        for kind in ("bbox", "segm"):
            scorer = COCOeval(coco, results, kind)
            scorer.params.maxDets = [len(found)]
            scorer.params.areaRng, scorer.params.areaRngLbl = [[0, 1e10]], ["all"]
            scorer.evaluate()
            scorer.accumulate()
            precision = scorer.eval["precision"]
            scores[f"{kind} AP"] = float(precision[precision > -1].mean())
    return scores


if __name__ == "__main__":
    run_tool(main)
