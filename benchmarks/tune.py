"""Find the sizes at which executors change their way anew, on this machine; print the table.

    python benchmarks/tune.py --threads 2
    python benchmarks/tune.py --fields few chunk --rounds 5

Each field of ``Settings`` (agent_attention/compute/guard.py) is tried with powers of two around the
one that stands there, on steps whose sizes lie between them. All values take turns; the best is the
one with the lowest geometric mean of the times, relative to the standing value. That one stays
unless another gains more than ``--least``. Paste the printed lines to have them.
"""

import argparse
import math
import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import reporting
import torch
from candidates import Setting, Step, at_least, build
from forms import STAGES
from measure import CPU, Call, times
from torch import nn

from agent_attention.compute.guard import Settings, using
from agent_attention.mixers import build_mixer
from mmengine_agent.run.exit import run_tool

AROUND = 2  # powers of two on both sides
MODELS, SIZES = ("pvt-t", "swin-t"), ((256, 320), (512, 512))
MIXERS = {"few": "agent", "focused": "focused", "norm": "norm", "aft_conv": "aft_conv"}
AGENTS = (12, 12)
FIELDS = (*MIXERS, "chunk", "kept")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--fields", nargs="+", choices=FIELDS, default=FIELDS, metavar="NAME", help="%(choices)s")
    add("--rounds", type=at_least(1), default=7, help="%(default)s")
    add("--least", type=float, default=0.02, help="gain that is worth a change (%(default)s)")
    add("--threads", type=at_least(1), help="CPU threads of torch")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    head = reporting.header()
    lines = [f"# {head['cpu']}, {head['threads']} threads, torch {head['torch']}"]
    for field in args.fields:
        standing: int = getattr(Settings(), field)
        ratios = means(field, standing, args.rounds)
        reporting.say(f"{field}: {', '.join(f'{v} {ratio:.3f}' for v, ratio in ratios.items())}")
        best = min(ratios, key=ratios.__getitem__)
        value = best if ratios[best] < 1 - args.least else standing
        lines.append(f"    {field}: int = 1 << {value.bit_length() - 1}")
    print(*lines, sep="\n")


def means(field: str, standing: int, rounds: int) -> dict[int, float]:
    """By value of a field: the geometric mean over steps of the time, relative to the standing."""
    values = [standing << AROUND >> down for down in range(2 * AROUND + 1)]
    logs: dict[int, list[float]] = {value: [] for value in values}
    for step in mixer_steps(field, values) if field in MIXERS else backbone_steps(field):
        found = times({str(v): partial(under, field, v, step) for v in values}, rounds)
        medians = {value: statistics.median(found[str(value)]) for value in values}
        for value, median in medians.items():
            logs[value].append(math.log(median / medians[standing]))
    return {value: math.exp(statistics.fmean(each)) for value, each in logs.items()}


def under(field: str, value: int, step: Call) -> None:
    """A step with one setting changed."""
    with using(**{field: value}):
        step()


def backbone_steps(field: str) -> Iterator[Call]:
    """Steps of whole backbones; hidden layers are kept in training alone."""
    for name in MODELS:
        for size in SIZES:
            for mode in ("training",) if field == "kept" else ("inference", "training"):
                yield Step(build(name, "ours"), Setting(CPU, torch.float32, 1, size), mode)


def mixer_steps(field: str, values: list[int]) -> Iterator[Call]:
    """Inference and training of a mixer alone, in two stages, with sizes between the values."""
    for stage in (0, 2):
        dim, heads = STAGES[stage]
        places: dict[str, Any] = {"table_shape": (56 >> stage,) * 2, "agent_shape": AGENTS}
        mixer = build_mixer(MIXERS[field], dim, heads, **places)
        width = heads * math.prod(AGENTS) if field == "few" else dim  # numbers a token
        for low in sorted(values)[:-1]:
            side = max(2, round((1.4 * low / width) ** 0.5))
            x = torch.randn(1, side * side, dim)
            for training in (False, True):
                yield partial(mix, mixer, x, (side, side), training)


def mix(mixer: nn.Module, x: torch.Tensor, size: tuple[int, int], training: bool) -> None:
    """One step of a mixer."""
    with torch.set_grad_enabled(training):
        out = mixer(x, size)
        if training:
            out.square().mean().backward()
            mixer.zero_grad()


if __name__ == "__main__":
    run_tool(main)
