"""Test a trained model before and after its softmax attention is swapped, without training.

    python tools/swap.py CONFIG CHECKPOINT
    python tools/swap.py CONFIG CHECKPOINT --forms agent nystrom --grids 12 9x16 --max-loss 0.02
    python tools/train.py WORK_DIR/swapped.py                  # fine-tune from there
    python tools/test.py WORK_DIR/swapped.py CHECKPOINT

Each form with each grid is put into all layers of the backbone: error of each layer on the softmax
model's own inputs, score, time and memory, beside the same weights with torch's fused softmax. Then
layers are swapped one by one, from the smallest error on, as long as the score stays above
(1 - MAX_LOSS) of softmax's; the chosen layers are written as a config, swapped.py, for training,
testing and all other tools. swap.md and swap.json in the work directory have all figures. Every
score is kept there: after Ctrl-C the same command goes on.
"""

import argparse
from itertools import product
from typing import Any

from agent_toolkit.swap.run import run
from mmengine_agent.errors import UsageError
from mmengine_agent.run.plain_flags import add_plain_flags
from mmengine_agent.run.setup import add_common_flags, make_parser
from mmengine_agent.swapped import FORMS


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Everything that the command takes."""
    add = parser.add_argument
    add("config", help="a name of `agent-attention configs`, or a file")
    add("checkpoint", help="checkpoint file")
    add(
        "--forms", nargs="+", choices=[*FORMS], default=[*FORMS], metavar="NAME", help="%(choices)s"
    )
    text = "of agents or pooled keys, 12 or 9x16 (height x width); default: 7 12 18"
    add("--grids", nargs="+", type=grid, default=[(7, 7), (12, 12), (18, 18)], help=text)
    text = "share of the score that may be lost; default: %(default)s"
    add("--max-loss", type=float, default=0.01, metavar="X", help=text)
    add("--images", type=int, metavar="N", help="test on the first N; default: on all")
    text = "batches on which errors, time and memory are measured; default: %(default)s"
    add("--batches", type=int, default=2, metavar="N", help=text)
    add("--rounds", type=int, default=3, metavar="N", help="of timing; default: %(default)s")
    add("--no-search", action="store_true", help="no search for layers, and no config")
    add_plain_flags(parser, training=False)
    add_common_flags(parser)


def grid(text: str) -> tuple[int, int]:
    """'12' or '9x16' as (rows, columns)."""
    rows, _, columns = text.partition("x")
    found = int(rows), int(columns or rows)
    if min(found) < 1:
        raise ValueError(text)
    return found


def main() -> None:
    parser = make_parser(__doc__)
    add_flags(parser)
    args = parser.parse_args()
    if not 0 <= args.max_loss < 1:
        raise UsageError(f"--max-loss is a share from 0 up to 1, got {args.max_loss}")
    for name in ("images", "batches", "rounds"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.launcher != "none":
        raise UsageError("--launcher: the swap is tested in one process")
    run(args, dict(candidates(args.forms, args.grids)))


def candidates(forms: list[str], grids: list[tuple[int, int]]) -> list[tuple[str, dict[str, Any]]]:
    """The settings of each form with each grid, by a name such as 'agent 12x12'."""
    pairs = product(dict.fromkeys(forms), dict.fromkeys(grids))
    return [
        (f"{form} {rows}x{columns}", {"form": form, "grid": (rows, columns)})
        for form, (rows, columns) in pairs
    ]
