"""Export a model with open sizes: to ONNX, or to a program that torch runs without this toolkit.

    python tools/export.py configs/agent_pvt_maskrcnn.py epoch_12.pth --out detector.onnx
    python tools/export.py configs/agent_pvt_semantic_fpn.py iter_40000.pth --out fpn.pt2 --labels
    python tools/export.py CONFIG CHECKPOINT --out model.onnx --out model.pt2    # recorded once

The input is `image`, float32 (B, 3, H, W), of any batch and size, RGB of 0 to 255 (see --input).
The config's normalisation is part of what is exported, and so is its padding, right and bottom;
resizing is yours, or --with-resize: `image` then is uint8 (1, H, W, 3).
(A .pt2 file refuses sides below 33, of detectors below 129, without padding below 64.) The outputs,
in pixels of `image`:

    detectors     boxes (B, N, 4), scores (B, N), labels (B, N), of instances masks (B, N, H, W)
    segmentors    logits (B, classes, H, W); --labels: labels (B, H, W); --probabilities
    --raw         of detectors the maps that boxes are made of: cls_score_0, ..., bbox_pred_0, ...;
                  of two stages the neck's map_0, ..., and rpn_cls_score_0, ...

Agents that the config leaves to a rule (agent_shapes="bounded") are fixed to those of --shape
(default: the size of tools/get_flops.py), which is said.

What was exported is run at two other sizes and compared with the model before the file gets its
name, with mmdet's or mmseg's own prediction; exit code 1 if they differ.
ONNX needs: pip install onnx onnxscript onnxruntime
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from agent_attention import __version__
from mmengine_agent.errors import UserError
from mmengine_agent.export.check import DifferenceError, Load
from mmengine_agent.export.formats import FORMATS, Facts, Format, cause, record
from mmengine_agent.export.modules import STRIDE, Exported, Prepare, fix_agent_grids
from mmengine_agent.export.precision import (
    add_precision_flags,
    change_precision,
    require_precision,
)
from mmengine_agent.export.resize import Resize
from mmengine_agent.files import atomic_write
from mmengine_agent.predict.classes import classes_of
from mmengine_agent.predict.model import dataset_of, load_model
from mmengine_agent.run.setup import add_config_flags, config_of, make_parser
from mmengine_agent.task import task_of

# of images: other shapes than the recorded one, and padded too
VERIFIED = ((1, 3, 150, 230), (2, 3, 203, 161))
# of pictures: near squares, which no config's resizing makes narrower than models can be
PICTURES = ((1, 150, 170, 3), (1, 203, 190, 3))
INPUTS = {
    "rgb": "RGB, 0 to 255",
    "bgr": "BGR, 0 to 255",
    "normalised": "normalised as the config's data_preprocessor does it",
}

OUTPUTS = {
    "labels": "of segmentors: labels, not logits",
    "probabilities": "of segmentors: probabilities, not logits",
    "raw": "of detectors: the outputs that boxes are made of, not objects",
}


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("config", help="config file, for example configs/agent_pvt_maskrcnn.py")
    add("checkpoint", nargs="?", help="checkpoint file; without it random weights")
    text = "FILE.onnx or FILE.pt2; given twice, the model is recorded once for both"
    add("--out", required=True, type=Path, metavar="FILE", action="append", help=text)
    add("--input", choices=INPUTS, default="rgb", help="what the images will be (%(default)s)")
    outputs = parser.add_mutually_exclusive_group()
    for name, text in OUTPUTS.items():
        how: dict[str, Any] = {
            "dest": "outputs",
            "action": "store_const",
            "const": name,
            "default": "usual",
        }
        outputs.add_argument(f"--{name}", **how, help=text)
    add("--with-resize", action="store_true", help="resize inside, as the config does in testing")
    add("--shape", type=int, nargs=2, metavar=("H", "W"), help="of images; only agents ask for it")
    add("--opset", type=int, metavar="N", help="of ONNX; default: torch's own")
    add("--no-verify", action="store_true", help="do not run what was exported")
    tolerance = "of verifying (%(default)s)"
    add("--tolerance", type=float, default=1e-4, metavar="X", help=tolerance)
    add_config_flags(parser)
    add_precision_flags(parser)
    args = parser.parse_args()
    with without_warnings():
        export(args)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keep to themselves what other packages say about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def export(args: argparse.Namespace) -> None:
    """Export the model that the flags name; of several files all or none are written.

    Raises:
        UserError: if it cannot be exported, or what was exported differs from it.
    """
    forms = formats_of(args.out)
    for form in forms.values():
        form.require(run=not args.no_verify)
    cfg = config_of(args)
    require_precision(cfg, args)
    model, reference, facts = prepare(cfg, args)
    with ExitStack() as stack:
        parts = {path: stack.enter_context(atomic_write(path)) for path in forms}
        print("recording the model, which takes about a minute", file=sys.stderr)
        program = record(model)
        for path, form in forms.items():
            form.write(program, parts[path], facts, args.opset)
            if not args.no_verify:
                verify(model, reference, form, parts[path], args.tolerance)
            change_precision(parts[path], cfg, args)
    for path in forms:
        print(f"wrote {path} ({path.stat().st_size / 2**20:.0f} MiB)")


def formats_of(paths: Sequence[Path]) -> dict[Path, Format]:
    """The kinds of files that names stand for, in the order in which they have to be written.

    Raises:
        UserError: if a name stands for none.
    """
    for path in paths:
        if path.suffix not in FORMATS:
            raise UserError(f"--out: name a file that ends in {' or '.join(FORMATS)}; got {path}")
    ordered = sorted(paths, key=lambda path: list(FORMATS).index(path.suffix))
    return {path: FORMATS[path.suffix] for path in ordered}


def prepare(cfg: Config, args: argparse.Namespace) -> tuple[Exported, Any, Facts]:
    """The model of a config as it will be recorded, as it is, and what its users have to know."""
    if args.checkpoint is None:
        print("no checkpoint: the weights are random", file=sys.stderr)
    model, meta = load_model(cfg, args.checkpoint, torch.device("cpu"))
    facts = {"config": args.config, "input": INPUTS[args.input]}
    facts |= {"version": __version__, "precision": "fp32"} | known(cfg, meta)
    height, width = args.shape or task_of(cfg).flops_shape
    if min(height, width) < STRIDE:
        raise UserError(f"--shape: sides must be at least {STRIDE}, got {height} {width}")
    if grids := fix_agent_grids(model.backbone, (height, width)):
        facts["agents"] = ", ".join(f"{rows}x{columns}" for rows, columns in dict.fromkeys(grids))
        print(
            f"agents by a rule are fixed, to those of images of {height}x{width} pixels (--shape): "
            f"{facts['agents']}",
            file=sys.stderr,
        )
    settings = cfg.model.get("data_preprocessor") or {}
    reference = None if args.no_verify else deepcopy(model)
    made = task_of(cfg).exported(model, Prepare(settings, args.input), args.outputs)
    if made.batch == "1" and not args.with_resize:
        print("the model takes one image at a time (batch 1)", file=sys.stderr)
    if args.with_resize:
        made.resize = resize_of(json.loads(facts["test_size"]), args)
    return made, reference, facts | made.facts()


def resize_of(size: dict[str, Any], args: argparse.Namespace) -> Resize:
    """The resizing of a config's test pipeline.

    Raises:
        UserError: if there is none of one size, or images come without their own pixels.
    """
    if args.input == "normalised":
        raise UserError("--with-resize takes pictures of 0 to 255: leave out --input normalised")
    scale = size["scale"]
    if not (isinstance(scale, list) and [type(side) for side in scale] == [int, int]):
        raise UserError(
            f"--with-resize: the config's test pipeline has no Resize with a scale of two numbers "
            f"({scale}): set it with --cfg-options, or leave out --with-resize"
        )
    return Resize((scale[0], scale[1]), size["keep_ratio"])


def known(cfg: Config, meta: dict[str, Any]) -> Facts:
    """The names and colours of the classes, and how the config resizes images in testing."""
    try:
        classes = classes_of(cfg, meta, None)
        names, colours = classes.names, classes.colours
    except UserError:  # none are known
        names, colours = (), ()
    try:
        steps = dataset_of(cfg).pipeline
    except UserError:
        steps = []
    resize: Any = next((step for step in steps if step["type"] == "Resize"), {})
    size = {"scale": resize.get("scale"), "keep_ratio": resize.get("keep_ratio", False)}
    values = {"classes": names, "palette": colours, "test_size": size}
    return {key: json.dumps(value) for key, value in values.items()}


def verify(model: Exported, reference: Any, form: Format, path: Path, tolerance: float) -> None:
    """Run both at other sizes than the recorded one.

    Raises:
        UserError: if the file cannot be run, or differs by more than the tolerance.
    """
    load: Load | None = None
    for shape in PICTURES if model.resize else VERIFIED:
        image = 255 * torch.rand(shape)
        if model.resize:
            image = image.byte()
        elif model.batch == "1":
            image = image[:1]
        sides = shape[1:3] if model.resize else shape[2:]
        where = f"at batch {len(image)} and {sides[0]}x{sides[1]} pixels"
        try:
            load = load or form.load(path)
            found = model.check(reference, load, image, tolerance)
        except DifferenceError as error:
            raise UserError(
                f"what was exported differs from the model {where}, {error}: nothing is written"
            ) from error
        except Exception as error:  # the runtimes have their own kinds
            raise UserError(f"what was exported does not run {where}: {cause(error)}") from error
        print(f"largest difference {where}: {found}")
