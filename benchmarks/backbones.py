"""Time and memory of each backbone beside its published formulation and softmax backbones.

    python benchmarks/backbones.py
    python benchmarks/backbones.py --models pvt-t,swin-t --size 512 512 --mode inference

For each model, ours, the published formulation and mmdet's softmax backbone take turns in one run;
ResNet-50 is measured once. Writes DIR/backbones.json with every single time, and backbones.png.
"""

import argparse
import itertools
import math
import statistics
from pathlib import Path
from typing import Any

import reporting
import torch
from candidates import (
    BASELINES,
    MODELS,
    MODES,
    SOFTMAX,
    Setting,
    Step,
    add_flags,
    build,
    flat,
    one_of,
)
from candidates import setting as read_setting
from matplotlib.patches import Patch
from measure import matmul_peak, matmul_share, multiply_adds, times

from mmengine_agent.errors import UserError
from mmengine_agent.run.exit import run_tool

RESNET = "resnet-50"
PEAK = "matmul"  # the matrix product that is timed beside the candidates
TITLES = (
    "model",
    "baseline",
    "mode",
    "ms",
    "/ ours",
    "peak MiB",
    "kept MiB",
    "saved MiB",
    "of peak",
)

Record = dict[str, Any]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser, list(MODELS))
    parser.add_argument(
        "--size", type=int, nargs=2, default=(800, 1344), metavar=("H", "W"), help="%(default)s"
    )
    text = "grids of all forms with agents: published (the default), rule, bounded"
    parser.add_argument("--agents", choices=["published", "rule", "bounded"], help=text)
    parser.add_argument("--mode", choices=MODES, nargs="+", default=MODES, help="both by default")
    parser.add_argument(
        "--baselines",
        type=one_of(BASELINES),
        nargs="+",
        default=[list(BASELINES)],
        metavar="NAME",
        help=f"of {', '.join(BASELINES)}; default: all",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    setting = read_setting(args, args.size)
    baselines = flat(args.baselines)
    models = flat(args.models) if set(baselines) - {RESNET} else []
    names = models + [RESNET] * (RESNET in baselines)
    head = {**reporting.header(), **setting.described()}
    records: list[Record] = []
    for name in names:
        key = "agent_shape" if name.startswith("vit") else "agent_shapes"
        options = {key: args.agents} if args.agents and name in MODELS else {}
        for mode in args.mode:
            wanted = compared(name, baselines, mode)
            if not wanted:
                continue
            reporting.say(f"{name}, {mode}: {', '.join(wanted)}, {args.repeats} rounds ...")
            records += measured(name, wanted, mode, setting, args.repeats, options)
            write(Path(args.out), head, records)
    print(as_table(records))
    for mode, ratio in published_ratios(records).items():
        print(f"published / ours, {mode}, geometric mean over models: {ratio:.2f}")
    print(f"written: {args.out}/backbones.json, {args.out}/backbones.png")


def compared(name: str, baselines: list[str], mode: str) -> list[str]:
    """The baselines of a model; gradient checkpointing is of use in training only."""
    if name == RESNET:
        return [RESNET]
    left_out = {RESNET}
    if mode != "training":
        left_out.add("ours-cp")
    if MODELS[name][0] not in SOFTMAX:
        left_out.add("softmax")
    return [b for b in baselines if b not in left_out]


def measured(
    name: str, baselines: list[str], mode: str, setting: Setting, repeats: int, options: Record
) -> list[Record]:
    """A record a baseline; ``options`` are of our constructors.

    Raises:
        UserError: if the GPU is out of memory.
    """
    try:
        return taken(name, baselines, mode, setting, repeats, options)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{name}, {mode}: out of GPU memory; what was measured before is kept. "
            "Use a smaller --size or --batch, or --baselines to leave one out"
        ) from error


def taken(
    name: str, baselines: list[str], mode: str, setting: Setting, repeats: int, options: Record
) -> list[Record]:
    """A record a baseline, all timed in turns."""
    steps = {b: Step(build(name, b, **options), setting, mode) for b in baselines}
    kept = {b: step.first() for b, step in steps.items()}
    product, flops = matmul_peak(setting.dtype, setting.device)
    found = times({PEAK: product, **steps}, repeats, settle=mode == "training")
    peak = flops / statistics.median(found[PEAK])
    ours = statistics.median(found["ours"]) if "ours" in found else None
    return [
        {
            **{"model": name, "baseline": baseline, "mode": mode},
            **timed(found[baseline], ours),
            **step.memory(),
            "kept_memory": kept[baseline],
            **worked(step, name, baseline, statistics.median(found[baseline]), peak, options),
            "matmul_times": found[PEAK],
        }
        for baseline, step in steps.items()
    ]


def timed(every: list[float], ours: float | None) -> Record:
    """Times in seconds, and how many times those of ours they are."""
    median = statistics.median(every)
    return {"times": every, "median": median, "ratio_to_ours": median / ours if ours else None}


def worked(
    step: Step, name: str, baseline: str, median: float, peak: float, options: Record
) -> Record:
    """Multiply-adds of a step and their share of the peak.

    All our forms count as the published one; backward counts twice a forward, and what is computed
    again counts no second time.
    """
    twin = build(name, "published" if baseline.startswith("ours") else baseline, **options)
    macs = multiply_adds(twin, step.setting.shape) * (3 if step.mode == "training" else 1)
    share = matmul_share(macs, median, peak)
    return {"multiply_adds": macs, "matmul_peak": peak, "share_of_peak": share}


# --- results


def published_ratios(records: list[Record]) -> dict[str, float]:
    """Geometric mean over the models of the time of the published form over ours, by mode."""
    found: dict[str, list[float]] = {}
    for record in records:
        if record["baseline"] == "published" and record["ratio_to_ours"]:
            found.setdefault(record["mode"], []).append(math.log(record["ratio_to_ours"]))
    return {mode: math.exp(statistics.fmean(logs)) for mode, logs in found.items()}


def write(folder: Path, head: dict[str, Any], records: list[Record]) -> None:
    """Write all that is measured so far."""
    means = published_ratios(records)
    reporting.write_json(
        folder / "backbones.json", {**head, "published_to_ours": means, "records": records}
    )
    draw(folder / "backbones.png", records)


def as_table(records: list[Record]) -> str:
    rows = [
        [
            *(record["model"], record["baseline"], record["mode"]),
            reporting.milliseconds(record["median"]),
            reporting.decimals(record["ratio_to_ours"]),
            reporting.mebibytes(record["peak_memory"]),
            reporting.mebibytes(record["kept_memory"]),
            reporting.mebibytes(record["saved_bytes"]),
            f"{100 * record['share_of_peak']:.0f} %",
        ]
        for record in records
    ]
    return reporting.table(TITLES, rows, labels=3)


def draw(path: Path, records: list[Record]) -> None:
    """Bars of time and memory by model, a row of plots a mode."""
    modes = list(dict.fromkeys(record["mode"] for record in records))
    figure, axes = reporting.subplots(len(modes), 2)
    columns = (("median", 1e3, "ms"), ("peak_memory", 1 / reporting.MIB, "peak memory, MiB"))
    for (i, mode), (j, (key, factor, label)) in itertools.product(
        enumerate(modes), enumerate(columns)
    ):
        axis = axes[i, j]
        bars(axis, [record for record in records if record["mode"] == mode], key, factor)
        axis.set_title(mode)
        axis.set_ylabel(label)
    found = {record["baseline"] for record in records}
    colours = [Patch(color=f"C{i}", label=b) for i, b in enumerate(BASELINES) if b in found]
    axes[0, 0].legend(handles=colours)
    figure.savefig(path, dpi=120)


def bars(axis: Any, records: list[Record], key: str, factor: float) -> None:
    """A group of bars a model, a colour a baseline."""
    models = list(dict.fromkeys(record["model"] for record in records))
    for number, baseline in enumerate(BASELINES):
        own = [record for record in records if record["baseline"] == baseline]
        places = [models.index(record["model"]) + 0.16 * (number - 2) for record in own]
        heights = [factor * record[key] for record in own]
        axis.bar(places, heights, width=0.15, color=f"C{number}")
    axis.set_xticks(range(len(models)), models, rotation=30)


if __name__ == "__main__":
    run_tool(main)
