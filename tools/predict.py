"""Predict on images, folders, patterns and videos: pictures, and results as files.

    python tools/predict.py CONFIG work_dirs/NAME/epoch_12.pth photos/ clip.mp4 --out predictions
    python tools/predict.py CONFIG CHECKPOINT "photos/**/*.jpg" --score-thr 0.05 --no-draw
    python tools/predict.py CONFIG CHECKPOINT aerial.tif --tile 1024 --overlap 128

A detector writes COCO results (predictions.json, for the images of images.json), a segmentor a
label map an image (labels/*.png, numbered as images.json says); both write pictures (drawn/). A
folder stands for the images and videos right in it. Images are prepared as in testing, each alone:
results do not depend on what else is predicted.

Large images: with --tile they are predicted in overlapping tiles, each treated as an image of that
size, so memory follows the tile. Take tiles of about the size of the training images, and an
overlap larger than the objects: one that a tile cuts off then comes from the tile that holds it
whole.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmengine_agent.errors import UserError
from mmengine_agent.predict.classes import classes_of
from mmengine_agent.predict.inputs import count, find, read
from mmengine_agent.predict.model import (
    Predictor,
    choose_device,
    dataset_of,
    load_model,
)
from mmengine_agent.predict.output import Output
from mmengine_agent.predict.run import predict
from mmengine_agent.predict.writer import Writer
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import KeyValues, read_config
from mmengine_agent.task import task_of


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file, best the one training wrote to its work dir")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, video, folder, pattern")
    parser.add_argument("--out", default="predictions", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; default: a GPU if any")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images or tiles")
    parser.add_argument(
        "--score-thr", type=float, default=0.3, metavar="S", help="least score of objects; 0.3"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="NAME",
        help="class names, or a text file with a name a line",
    )
    parser.add_argument("--tile", type=int, metavar="SIZE", help="cut images into tiles; pixels")
    parser.add_argument(
        "--overlap", type=int, metavar="N", help="of neighbouring tiles, pixels; default: SIZE / 8"
    )
    parser.add_argument("--no-draw", action="store_true", help="no pictures")
    parser.add_argument("--no-results", action="store_true", help="no predictions.json, no labels")
    parser.add_argument("--cfg-options", nargs="+", action=KeyValues, metavar="KEY=VALUE")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    require_sense(args)
    np.random.seed(0)  # mmdet varies the colours of objects: the same ones each time
    cfg = read_config(args.config, args.cfg_options)
    paths, faults = find(args.inputs)
    if not paths:
        raise UserError("\n  ".join(["there is nothing to predict on:", *faults]))
    model, meta = load_model(cfg, args.checkpoint, choose_device(args.device))
    classes = classes_of(cfg, model, meta, args.classes)
    writer = task_of(cfg).writer(classes, model, args.score_thr, not args.no_results)
    predictor = Predictor(model, dataset_of(cfg).pipeline)
    done = run(args, writer, predictor, paths, faults)
    if done:
        print(f"predicted on {done} images or frames: {args.out}")
    if faults:
        raise UserError("\n  ".join([f"{len(faults)} inputs have a fault:", *faults]))


def require_sense(args: argparse.Namespace) -> None:
    """Raise UserError for numbers that make no sense, before anything is loaded."""
    if args.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, got {args.batch_size}")
    if args.tile is None and args.overlap is not None:
        raise UserError("--overlap is of tiles: give --tile SIZE too")
    if args.tile is not None and args.tile < 32:
        raise UserError(f"--tile must be at least 32 pixels, got {args.tile}")
    if args.overlap is not None and not 0 <= args.overlap < args.tile:
        raise UserError(f"--overlap must be from 0 to less than --tile, got {args.overlap}")
    if args.no_draw and args.no_results:
        raise UserError("--no-draw and --no-results together leave nothing to write")


def run(
    args: argparse.Namespace,
    writer: Writer,
    predictor: Predictor,
    paths: list[Path],
    faults: list[str],
) -> int:
    """Predict on files and write; the number of images, and ``faults`` grows by the unreadable."""
    overlap = 0 if args.tile is None else args.overlap
    overlap = args.tile // 8 if overlap is None else overlap
    info = {"config": args.config, "checkpoint": args.checkpoint}
    output = Output(Path(args.out), writer, info, draw=not args.no_draw)
    with output, tqdm(total=count(paths), unit="image") as bar:
        frames = read(paths, predictor.load, faults)

        def tick(cut: Any) -> None:
            if cut.total > 1:
                bar.set_postfix_str(f"tile {cut.number}/{cut.total}")

        for frame, result in predict(
            frames, predictor, writer, args.tile, overlap, args.batch_size, tick
        ):
            output.add(frame, result)
            bar.update()
    return len(output.images)


if __name__ == "__main__":
    run_tool(main)
