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
import io
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from cells import DONE, try_cell
from stock import BACKBONES, STOCK, Stock

PAGE = Path(__file__).parents[2] / "docs/any_head.md"
BEGIN, END = "<!-- table: tests/heads/run.py --write -->\n", "<!-- end -->\n"


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
            print(
                f"{stock.head:24} {backbone:14} {time.time() - started:5.1f} s  {cell}", flush=True
            )
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
