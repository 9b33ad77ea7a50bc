"""Whole models of mmdet's and mmseg's stock configs with our backbones, exported: a table.

    make exports
    python tests/exports/run.py ATSS "Mask R-CNN" --formats .onnx --backbones agent_pvt_t

Each config gets each backbone as ``--backbone`` puts it there, at its full width, at most a hundred
queries, and seeded weights. Its files are compared with mmdet's or mmseg's own predictions at three
sizes that were not recorded. A cell has the largest differences, or says why there is none. Exit
code 1 if one is larger than tools/export.py allows, or a model cannot be exported.
"""

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "heads"))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from helpers import seed_weights
from stock import BACKBONES, STOCK, Stock

from agent_toolkit.commands.export import without_warnings
from mmengine_agent.backbone_flags import BackboneFlags
from mmengine_agent.config_walk import walk
from mmengine_agent.export.formats import FORMATS, record
from mmengine_agent.export.modules import Prepare
from mmengine_agent.predict.model import build_model
from mmengine_agent.run.setup import read_config
from mmengine_agent.task import task_of

HEADS = (
    *("RetinaNet", "ATSS", "GFL", "FCOS", "RTMDet", "RTMDet-Ins", "YOLOX", "YOLOF"),
    *("Faster R-CNN", "Mask R-CNN", "Cascade Mask R-CNN"),
    *("DETR", "DAB-DETR", "Deformable DETR", "DINO"),
    *("Mask2Former, instances", "Mask2Former, panoptic"),
    *("Semantic FPN", "UPerNet", "FCN", "PSPNet", "DeepLabV3+", "SegFormer"),
    *("MaskFormer", "Mask2Former, semantic"),
)
SIZES = ((1, 203, 161), (2, 256, 320), (1, 480, 640))  # batch, height, width
TOLERANCE = 1e-4


def rows(wanted: list[str], backbones: list[str], formats: list[str]) -> Iterator[list[str]]:
    """Head, backbone, format and a cell for each size; a fault is a cell that begins so."""
    for stock in STOCK:
        if stock.head not in (wanted or HEADS):
            continue
        for backbone in backbones:
            for suffix in formats:
                started = time.time()
                try:
                    cells = compare(stock, backbone, suffix)
                except Exception as error:
                    traceback.print_exc()
                    cells = [f"FAULT: {' '.join(str(error).split())[:150]}"] * len(SIZES)
                row = [stock.head, backbone, suffix, *cells]
                print(f"{time.time() - started:6.0f} s  {'; '.join(row)}", flush=True)
                yield row


def compare(stock: Stock, backbone: str, suffix: str) -> list[str]:
    """The largest differences of a file from its model, at each size."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cfg = read_config(stock.config, None, BackboneFlags(backbone, from_scratch=True))
        for _, node in walk(cfg.model):
            if "num_queries" in node:  # those that DINO chooses are as many as small images have
                node.num_queries = min(node.num_queries, 100)
        model: Any = seed_weights(build_model(cfg)).eval()
    settings = cfg.model.get("data_preprocessor") or cfg.get("data_preprocessor") or {}
    made = task_of(cfg).exported(deepcopy(model), Prepare(settings, "rgb"), "usual")
    form = FORMATS[suffix]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{suffix}"
        form.write(record(made, form.plain), path, {}, None)
        load = partial(form.load, path)
        return [str(check(made, model, load, size)) for size in SIZES]


def check(made: Any, model: Any, load: Any, size: tuple[int, int, int]) -> str:
    batch, height, width = size
    batch = batch if made.batch == "any" else 1
    torch.manual_seed(0)
    image = 255 * torch.rand(batch, 3, height, width)
    try:
        return made.check(model, load, image, TOLERANCE)
    except Exception as error:
        return f"FAULT: {' '.join(str(error).split())[:150]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("head", nargs="*", help="of tests/heads/stock.py; default: HEADS")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), choices=FORMATS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with without_warnings():
        found = list(rows(args.head, args.backbones, args.formats))
    sizes = [f"{batch} x {height} x {width}" for batch, height, width in SIZES]
    titles = ["head", "backbone", "file", *sizes]
    print(f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for row in found:
        print(f"| {' | '.join(row)} |")
    faults = sum(cell.startswith("FAULT") for row in found for cell in row)
    print(f"{len(found)} files, {faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
