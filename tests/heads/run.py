"""Stock configs of mmdet and mmseg with our backbones: a table.

    make heads
    python tests/heads/run.py RTMDet DINO        # some rows
    python tests/heads/run.py --write            # all, and into docs/any_head.md

Each config gets each backbone as ``--backbone`` puts it there; then one training step, one
prediction and a count of operations, on two images of 64 x 64 pixels. Only what is slow on a CPU
is made small: numbers of queries and proposals, and batches of padded images. A cell that cannot
be says why. Exit code 1 if a cell is not what ``stock.py`` says.
"""

import argparse
import contextlib
import copy
import io
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "tests")]

import get_flops
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from one_step import SIZE, check_training_step, few_proposals, is_detector, packed_batch
from stock import BACKBONES, STOCK, Stock

from mmengine_agent.config_walk import walk
from mmengine_agent.errors import UserError
from mmengine_agent.run.setup import read_config
from mmengine_agent.swap_backbone import BackboneFlags

PAGE = ROOT / "docs/any_head.md"
BEGIN, END = "<!-- table: tests/heads/run.py --write -->\n", "<!-- end -->\n"
_QUERIES = {"num_queries": 24, "num_proposals": 24, "num_dn_queries": 10}
DONE = "trained, predicted, counted"


def small(cfg: Config) -> Config:
    """A config whose model takes seconds on a CPU, in place."""
    few_proposals(cfg.model)
    cfg.model.setdefault("data_preprocessor", cfg.get("data_preprocessor"))
    cfg.model.data_preprocessor.pop("batch_augments", None)
    for _, node in walk(cfg.model):
        if "score_thr" in node:
            node.score_thr = 0.0  # what has learnt nothing is sure of nothing
        node.update({key: min(node[key], most) for key, most in _QUERIES.items() if key in node})
    return cfg


def try_cell(stock: Stock, backbone: str) -> str:
    """What a config does with a backbone, or the sentence with which it is refused.

    Raises:
        AssertionError: if it does not do it.
    """
    try:
        cfg = small(read_config(stock.config, None, BackboneFlags(backbone, from_scratch=True)))
    except UserError as error:
        assert stock.refused and stock.refused in str(error), error
        return str(error)
    assert not stock.refused, "it was not refused"
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model: Any = revert_sync_batchnorm(MODELS.build(copy.deepcopy(cfg.model)))
    model.init_weights()
    for name, weights in model.named_parameters():
        if "fc_reg" in name:  # random ones move boxes out of the image, where mmdet pastes no mask
            weights.data.zero_()
    MessageHub.get_current_instance().update_info("epoch", 0)  # TOOD asks for it
    masks = any(step.get("with_mask") for _, step in walk(cfg.train_dataloader))
    check_training_step(model, masks)
    check_gradients(model, masks)
    check_prediction(model)
    counts = get_flops.count(cfg, (SIZE, 2 * SIZE))
    assert counts["model"].multiply_adds > counts["backbone"].multiply_adds > 0
    return DONE


def check_gradients(model: Any, masks: bool) -> None:
    """Every parameter of the backbone gets one, as DDP asks for."""
    model.train()
    losses, _ = model.parse_losses(model(**packed_batch(model, True, masks), mode="loss"))
    losses.backward()
    without = [name for name, p in model.backbone.named_parameters() if p.grad is None]
    assert not [name for name in without if model.backbone.get_parameter(name).requires_grad]


@torch.no_grad()
def check_prediction(model: Any) -> None:
    """There is a result for each image, of its size."""
    results = model.eval()(**packed_batch(model, training=False), mode="predict")
    assert len(results) == 2
    for each in results:
        if not is_detector(model):
            assert each.pred_sem_seg.data.shape == (1, SIZE, SIZE)
        elif "pred_panoptic_seg" in each:
            assert each.pred_panoptic_seg.sem_seg.shape == (1, SIZE, SIZE)
        else:
            found = each.pred_instances
            assert len(found.scores) == len(found.labels) == len(found)
            assert "masks" not in found or found.masks.shape[1:] == (SIZE, SIZE)


def rows(wanted: list[str]) -> Iterator[tuple[Stock, list[str]]]:
    """Each config, and its cells, printed as they are made; a fault is a cell that begins so."""
    for stock in STOCK:
        if wanted and stock.head not in wanted and stock.name not in wanted:
            continue
        cells = []
        for backbone in BACKBONES:
            started, said = time.time(), io.StringIO()
            try:
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    cell = try_cell(stock, backbone)
            except Exception as error:
                traceback.print_exc()
                cell = f"FAULT: {type(error).__name__}: {' '.join(str(error).split())[:150]}"
            print(f"{stock.head:24} {backbone:14} {time.time() - started:5.1f} s  {cell}", flush=True)
            cells.append(cell)
        yield stock, cells


def table(found: list[tuple[Stock, list[str]]]) -> str:
    """The page's table; two cells that say the same are said once."""
    lines = [f"| head | config | {' | '.join(BACKBONES)} |", "|---|---|---|---|"]
    for stock, cells in found:
        said = [cell.removeprefix("--backbone: ") for cell in cells]
        said = said if said[0] == DONE or said[0] != said[1] else [said[0], "the same"]
        lines.append(f"| {stock.head} | `{stock.config}` | {' | '.join(said)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("head", nargs="*", help="head or config of stock.py; default: all")
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found = list(rows(args.head))
    faults = sum(cell.startswith("FAULT") for _, cells in found for cell in cells)
    if args.write and not args.head:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(before + BEGIN + table(found) + END + rest.partition(END)[2])
    print(f"{len(found)} configs, {len(BACKBONES)} backbones, {faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
