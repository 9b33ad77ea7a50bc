"""Whole models of mmdet's and mmseg's stock configs with our backbones, exported: a table.

    make exports
    python tests/exports/run.py ATSS "Mask R-CNN" --formats .onnx --backbones agent_pvt_t
    python tests/exports/run.py --keep rows.jsonl     # stopped and started again, it goes on
    python tests/exports/run.py "Semantic FPN" --with-resize     # against the test pipeline

Each config gets each backbone as ``--backbone`` puts it there, at its full width, at most a hundred
queries, and seeded weights, and is recorded once. Its files are compared with mmdet's or mmseg's
own predictions at three sizes that were not recorded; a detector's is also given a threshold that
no score is above. A cell has the largest differences, or says why there is none. Exit code 1 if one
is larger than tools/export.py allows, or a model cannot be exported.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "heads"))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from helpers import seed_weights
from piped_models import PipedModel
from query_models import tell_apart
from stock import BACKBONES, STOCK, Stock
from torch import Tensor

from agent_toolkit.commands.export import known, resize_of, without_warnings
from mmengine_agent.backbone_flags import BackboneFlags
from mmengine_agent.config_walk import walk
from mmengine_agent.export.check import Load
from mmengine_agent.export.formats import FORMATS, record
from mmengine_agent.export.modules import Prepare
from mmengine_agent.predict.model import build_model
from mmengine_agent.run.setup import read_config
from mmengine_agent.task import task_of

MORE = (  # heads that are like others in anything but an export
    Stock("Conditional DETR", "mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py"),
)
HEADS = (
    *("RetinaNet", "ATSS", "GFL", "FCOS", "RTMDet", "RTMDet-Ins", "YOLOX", "YOLOF"),
    *("Faster R-CNN", "Mask R-CNN", "Cascade Mask R-CNN"),
    *("DETR", "Conditional DETR", "DAB-DETR", "Deformable DETR", "DINO"),
    *("Mask2Former, instances", "Mask2Former, panoptic", "MaskFormer, panoptic"),
    *("Semantic FPN", "UPerNet", "FCN", "PSPNet", "DeepLabV3+", "SegFormer"),
    *("MaskFormer", "Mask2Former, semantic"),
)
SIZES = ((1, 203, 161), (2, 256, 320), (1, 480, 640))  # batch, height, width
TOLERANCE = 1e-4
Name = tuple[str, ...]  # of a row: head, backbone and format


def rows(args: argparse.Namespace) -> Iterator[list[str]]:
    """Head, backbone, format and a cell for each size; a fault is a cell that begins so."""
    kept = read_rows(args.keep)
    for stock, backbone in product((*STOCK, *MORE), args.backbones):
        if stock.head not in (args.head or HEADS):
            continue
        names = [(stock.head, backbone, suffix) for suffix in FORMATS if suffix in args.formats]
        missing = [name for name in names if name not in kept]
        started = time.process_time()
        for name, cells in zip(missing, try_files(stock, missing, args.with_resize), strict=True):
            used, started = time.process_time() - started, time.process_time()
            print(f"{used:6.0f} s  {'; '.join([*name, *cells])}", flush=True)
            kept[name] = cells
            if args.keep:
                with args.keep.open("a") as file:
                    file.write(json.dumps([*name, *cells]) + "\n")
        yield from ([*name, *kept[name]] for name in names)


def read_rows(path: Path | None) -> dict[Name, list[str]]:
    """The rows that a file keeps, without those with a fault."""
    if path is None or not path.is_file():
        return {}
    found = map(json.loads, path.read_text().splitlines())
    return {tuple(row[:3]): row[3:] for row in found if not any(map(is_fault, row))}


def try_files(stock: Stock, names: list[Name], with_resize: bool) -> Iterator[list[str]]:
    """The cells of files of one model, which is recorded once."""
    model: Model | None = None
    for _, backbone, suffix in names:
        try:
            model = model or Model(stock, backbone, with_resize)
            yield model.compare(suffix)
        except Exception as error:
            yield [fault(error)] * len(SIZES)


def is_fault(cell: str) -> bool:
    return cell.startswith("FAULT")


def fault(error: Exception) -> str:
    traceback.print_exc()
    return f"FAULT: {' '.join(str(error).split())[:150]}"


class Model:
    """A model of a stock config with one of our backbones, recorded.

    Args:
        stock: the config.
        backbone: the flag.
        with_resize: whether its files resize pictures, and are compared with the test pipeline.
    """

    def __init__(self, stock: Stock, backbone: str, with_resize: bool) -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            cfg = read_config(stock.config, None, BackboneFlags(backbone, from_scratch=True))
            for _, node in walk(cfg.model):
                if "num_queries" in node:  # DINO chooses as many as small images have
                    node.num_queries = min(node.num_queries, 100)
                if "instance_on" in node:  # MaskFormer's panoptic config leaves instances out
                    node.instance_on = True
            self.own: Any = tell_apart(seed_weights(build_model(cfg)).eval())
        settings = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
        self.made = task_of(cfg).exported(deepcopy(self.own), Prepare(settings, "rgb"), "usual")
        self.cfg = cfg
        if with_resize:
            size = json.loads(known(cfg, {})["test_size"])
            self.made.resize = resize_of(size, argparse.Namespace(input="rgb"))
        self.program = record(self.made)

    def compare(self, suffix: str) -> list[str]:
        """The largest differences of a file from the model, at each size."""
        form = FORMATS[suffix]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"model{suffix}"
            form.write(self.program, path, {}, None)
            load = form.load(path)
            return [self.check(load, size) for size in SIZES]

    def check(self, load: Load, size: tuple[int, int, int]) -> str:
        batch, height, width = size
        batch = batch if self.made.batch == "any" else 1
        torch.manual_seed(0)
        image, own = 255 * torch.rand(batch, 3, height, width), self.own
        if self.made.resize:
            image = image[:1].permute(0, 2, 3, 1).byte()
            own = PipedModel(own, self.cfg, image)
        try:
            said = self.made.check(own, load, image, TOLERANCE)
            if size == SIZES[0] and getattr(self.made, "has_threshold", False):
                require_nothing(load({"score_threshold": 2.0})(image), size)
            return said
        except Exception as error:
            return fault(error)


def require_nothing(found: dict[str, Tensor], size: tuple[int, int, int]) -> None:
    """Raise ValueError if a file has objects where no score is high enough, or other shapes."""
    batch, *sides = size
    wanted = {"boxes": (batch, 0, 4), "scores": (batch, 0), "labels": (batch, 0)}
    if "masks" in found:
        wanted["masks"] = (batch, 0, *sides)
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    if shapes != wanted:
        raise ValueError(f"without objects the file gives {shapes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("head", nargs="*", help="of tests/heads/stock.py; default: HEADS")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    parser.add_argument("--with-resize", action="store_true", help="files that resize pictures")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="where rows are kept, as JSON")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with without_warnings():
        found = list(rows(args))
    sizes = [f"{batch} x {height} x {width}" for batch, height, width in SIZES]
    titles = ["head", "backbone", "file", *sizes]
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for row in found:
        print(f"| {' | '.join(row)} |")
    faults = sum(is_fault(cell) for row in found for cell in row)
    print(f"{len(found)} files, {faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
