"""Mixers beside their plain form of ``published.py``, in the stages of PVT-T and as a whole.

    python benchmarks/forms.py --threads 2
    python benchmarks/forms.py --mixers norm --size 256 320 --places stage1

``stageN`` is the mixing alone, of queries, keys and values that are there; ``model`` is PVT-T with
the mixer in all blocks. Ours and the plain form take turns, each with an untimed step first, and
so does, of a model, the plain form whose mixers pass values on unmixed: no way of mixing can gain
more than that does (``bound``). A plain form that would make more than ``--max-gib`` of scores is
left out. Writes DIR/forms.json.
"""

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import reporting
import torch
from candidates import at_least, flat, one_of
from measure import peak_memory, saved_bytes, times
from published import Published
from torch import Tensor, nn

from agent_attention import AgentPVT
from agent_attention.compute.guard import using
from agent_attention.mixers import build_mixer
from agent_attention.mixers.base import Mixer
from mmengine_agent.run.exit import run_tool

MIXERS = ("focused", "norm", "aft_conv", "aft_local")
STAGES = ((64, 1), (128, 2), (320, 5), (512, 8))  # channels and heads at strides 4, 8, 16, 32
PLACES = [*(f"stage{i + 1}" for i in range(len(STAGES))), "model"]
FIGURES = ("inference", "training", "peak inference", "peak training", "saved")
TITLES = (
    *("mixer", "place", "plain/ours", "training", "peak ours/plain", "training", "saved"),
    *("bound", "training"),
)
Record = dict[str, Any]
Forward = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--mixers", type=one_of(MIXERS), nargs="+", default=[list(MIXERS)], metavar="NAME")
    add("--places", type=one_of(PLACES), nargs="+", default=[PLACES], metavar="NAME")
    add("--size", type=at_least(32), nargs=2, default=(800, 1344), metavar=("H", "W"))
    add("--rounds", type=at_least(1), default=7, help="%(default)s")
    add("--max-gib", type=float, default=4.0, help="of one tensor of scores (%(default)s)")
    add("--threads", type=at_least(1), help="CPU threads of torch")
    add("--out", default="work_dirs/benchmarks", metavar="DIR", help="%(default)s")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    records: list[Record] = []
    for name in flat(args.mixers):
        for place in flat(args.places):
            records.append(measured(name, place, tuple(args.size), args))
            reporting.write_json(
                Path(args.out, "forms.json"), {**reporting.header(), "records": records}
            )
            reporting.say(line(records[-1]))
    rows = [[r["mixer"], r["place"], *ratios(r)] for r in records]
    print(reporting.table(TITLES, rows, labels=2))


def measured(name: str, place: str, size: tuple[int, int], args: argparse.Namespace) -> Record:
    """Medians in seconds and bytes of both forms, by name of the figure."""
    record: Record = {"mixer": name, "place": place, "size": size}
    stage = 0 if place == "model" else PLACES.index(place)
    stride = 4 << stage
    tokens = (size[0] // stride) * (size[1] // stride)
    if name == "aft_local" and 4 * STAGES[stage][1] * tokens**2 > args.max_gib * 2**30:
        return {**record, "reason": f"the plain form has scores of {tokens} x {tokens}"}
    torch.manual_seed(0)
    forms = of_model(name, size) if place == "model" else of_stage(name, stage, size)
    for mode, training in (("inference", False), ("training", True)):
        steps = {form: step(*both, training) for form, both in forms.items()}
        found = times(steps, args.rounds, settle=True)
        record[mode] = {form: statistics.median(each) for form, each in found.items()}
        record[f"peak {mode}"] = {form: peak_memory(call) for form, call in steps.items()}
    record["saved"] = {form: saved_bytes(forward) for form, (_, forward) in forms.items()}
    return record


def of_model(name: str, size: tuple[int, int]) -> dict[str, tuple[nn.Module, Forward]]:
    """The whole backbone in both forms and without mixing, and its forward."""
    model, images = AgentPVT("tiny", mixers=(name,) * 4), torch.randn(1, 3, *size)
    forms: dict[str, nn.Module] = {"ours": model, "plain": Published(model)}
    forms["bound"] = Published(model)
    for each in forms["bound"].modules():
        if isinstance(each, Mixer):
            each.mix = lambda q, k, v, size: v  # type: ignore[method-assign]
    return {form: (each, partial(each, images)) for form, each in forms.items()}


def of_stage(name: str, stage: int, size: tuple[int, int]) -> dict[str, tuple[nn.Module, Forward]]:
    """A mixer in both forms, and the mixing of what it projects."""
    (dim, heads), stride = STAGES[stage], 4 << stage
    here = (size[0] // stride, size[1] // stride)
    mixer = build_mixer(name, dim, heads, table_shape=(224 // stride,) * 2)
    x = torch.randn(1, here[0] * here[1], dim)
    projected = [t.detach().requires_grad_() for t in mixer.project(x, here)]
    plain = Published(mixer).model
    assert isinstance(plain, Mixer)

    def definition() -> list[Tensor]:
        q, k, v = projected
        with using(way="plain"):
            return [plain.mix(q, k, v, here)]

    def ours() -> list[Tensor]:
        return [mixer.mix_by_executor(projected, here)]

    return {"ours": (mixer, ours), "plain": (plain, definition)}


def step(model: nn.Module, forward: Forward, training: bool) -> Forward:
    """A forward without gradients, or one with a backward."""

    def infer() -> Any:
        model.eval()
        with torch.no_grad():
            return forward()

    def train() -> None:
        model.train()
        outs: list[Tensor] = forward()
        torch.stack([out.square().mean() for out in outs]).sum().backward()
        model.zero_grad()

    return train if training else infer


def ratios(record: Record) -> list[str]:
    """Plain / ours in time, ours / plain in memory, plain / without mixing in time."""
    if "reason" in record:
        return [record["reason"], *("-" for _ in TITLES[3:])]
    times_, bytes_ = FIGURES[:2], FIGURES[2:]
    bounds = [record[key]["plain"] / record[key].get("bound", math.nan) for key in times_]
    return [
        *(f"{record[key]['plain'] / record[key]['ours']:.2f}" for key in times_),
        *(f"{record[key]['ours'] / record[key]['plain']:.2f}" for key in bytes_),
        *("-" if math.isnan(bound) else f"{bound:.2f}" for bound in bounds),
    ]


def line(record: Record) -> str:
    """One line for who waits."""
    return f"{record['mixer']:<10} {record['place']:<8} {' '.join(ratios(record))}"


if __name__ == "__main__":
    run_tool(main)
