"""``--precision`` of an exported ONNX file: what it asks for, and what it costs."""

import copy
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config

from agent_attention.runtime import Model, Result
from agent_attention.runtime.images import read_image
from mmengine_agent.data.images import IMAGES
from mmengine_agent.data.user_data import DataFlags, point_at, require_data
from mmengine_agent.errors import UserError
from mmengine_agent.export.low_precision import write_half, write_int8
from mmengine_agent.export.scores import load_exported, score
from mmengine_agent.task import task_of

HALF_AGREES = 0.99  # least share of pixels or objects that fp16 must leave as they are
PRECISIONS = ("fp32", "fp16", "int8")


def add_precision_flags(parser: ArgumentParser) -> None:
    """Add ``--precision`` and what goes with it, as a group of their own."""
    add = parser.add_argument_group("precision", "of ONNX files").add_argument
    add("--precision", choices=PRECISIONS, default="fp32", help="of its numbers (%(default)s)")
    text = "a folder of images like those that the model will see; int8 takes its ranges from them"
    add("--calibration", type=Path, metavar="DIR", help=text)
    text = "how many of them to take (%(default)s)"
    add("--calibration-images", type=int, default=100, metavar="N", help=text)
    text = "test data of the config: what the precision costs there is printed"
    add("--data-root", metavar="DIR", help=text)


def require_precision(cfg: Config, args: Namespace) -> None:
    """Raise UserError for flags that make no sense, before anything is exported."""
    if args.precision == "fp32":
        return
    for path in args.out:
        if path.suffix != ".onnx":
            raise UserError(f"--precision {args.precision} is of .onnx files; got {path}")
    if args.outputs == "raw" or args.input == "normalised":
        raise UserError(
            f"--precision {args.precision} is checked on images: leave out --raw and --input "
            "normalised"
        )
    if args.precision == "int8" and args.calibration is None:
        raise UserError("--precision int8 needs --calibration DIR, a folder of typical images")
    calibration_images(args)
    scored_config(cfg, args.data_root)


def calibration_images(args: Namespace) -> list[Path]:
    """Files of ``--calibration``, taken evenly from all that are there; none without a folder.

    Raises:
        UserError: if there are none in it.
    """
    folder, count = args.calibration, args.calibration_images
    if folder is None:
        return []
    if count < 1:
        raise UserError(f"--calibration-images must be at least 1, got {count}")
    inside = folder.rglob("*") if folder.is_dir() else ()
    files = sorted(path for path in inside if path.suffix.lower() in IMAGES)
    if not files:
        raise UserError(f"--calibration {folder}: no such folder, or no images in it")
    return files[:: -(-len(files) // count)]


def scored_config(cfg: Config, root: str | None) -> Config | None:
    """A config that tests on data in a folder; None without one.

    Raises:
        UserError: if they are not there.
    """
    if root is None:
        return None
    cfg = copy.deepcopy(cfg)
    point_at(cfg, DataFlags(root=root))
    require_data(cfg, "test")
    return cfg


def change_precision(path: Path, cfg: Config, args: Namespace) -> None:
    """Write an ONNX file anew in the precision of the flags, and print what that changes.

    Raises:
        UserError: if it cannot be written, or if fp16 changes more than rounding explains.
    """
    if args.precision == "fp32":
        return
    import onnx

    images = calibration_images(args)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".precision.") as folder:
        made = Path(folder, "made.onnx")
        if args.precision == "fp16":
            write_half(path, made)
        else:
            write_int8(path, made, images)
        model = onnx.load(made)
        facts = {each.key: each.value for each in model.metadata_props}
        onnx.helper.set_model_props(model, {**facts, "precision": args.precision})
        onnx.save(model, made)
        share = agreement(load_exported(path), load_exported(made), images)
        print(f"{args.precision}: {share:.2%} of pixels or objects as before, on the same images")
        if args.precision == "fp16" and share < HALF_AGREES:
            raise UserError(
                f"--precision fp16: {share:.2%} of pixels or objects are as before, less than "
                f"{HALF_AGREES:.0%}: nothing is written"
            )
        if scored := scored_config(cfg, args.data_root):
            print_scores(scored, path, made, args.precision)
        made.replace(path)


# ---- what it costs


def agreement(one: Model, other: Model, images: Sequence[Path]) -> float:
    """The share of pixels with the same label, or of objects that both models find.

    Objects are the same with one label, boxes of IoU 0.9 or more and scores within 0.05. Without
    images a picture of noise is taken.
    """
    noise = np.random.default_rng(0).integers(0, 256, (150, 230, 3), dtype=np.uint8)
    pictures = [read_image(each) for each in images] or [noise]
    return float(np.mean([_agree(one(each), other(each)) for each in pictures]))


def _agree(one: Result, other: Result) -> float:
    if one.label_map is not None:
        return float(np.mean(one.label_map == other.label_map))
    ours, theirs = one.boxes, other.boxes
    assert ours is not None and one.labels is not None and one.scores is not None
    assert theirs is not None
    if not len(ours) or not len(theirs):
        return float(len(ours) == len(theirs))
    low = np.maximum(ours[:, None, :2], theirs[:, :2])
    high = np.minimum(ours[:, None, 2:], theirs[:, 2:])
    shared = (high - low).clip(0).prod(-1)
    area, areas = ((each[:, 2:] - each[:, :2]).prod(-1) for each in (ours, theirs))
    same = shared >= 0.9 * (area[:, None] + areas - shared)
    same &= one.labels[:, None] == other.labels
    same &= abs(one.scores[:, None] - other.scores) <= 0.05
    return float(min(same.any(0).sum(), same.any(1).sum()) / max(same.shape))


def print_scores(cfg: Config, before: Path, after: Path, precision: str) -> None:
    """Print the main score of both files on the test data of a config."""
    main = task_of(cfg).main_score(cfg)
    was, is_ = (100 * score(cfg, file)[main.key] / main.perfect for file in (before, after))
    print(f"{main.key}: fp32 {was:.1f}, {precision} {is_:.1f}: {was - is_:.1f} points lost")
