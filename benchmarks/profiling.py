"""Where a step's time goes: kernels by kind, Python calls, autograd nodes, share of the peak.

    python benchmarks/profiling.py --models pvt-t --sizes 256x320 512x512 --agents bounded

For each model, size, mode and baseline one step in turn is timed, then one is recorded by torch's
profiler. Its kernels are counted and their own times summed by kind; views count as none. Writes
DIR/profiling.json, and DIR/profiling.png. (Not profile.py: that is the name of a standard module.)
"""

import argparse
import itertools
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import reporting
import torch
from backbones import compared
from candidates import MODES, Setting, Step, add_flags, build, flat, one_of
from candidates import setting as read_setting
from measure import matmul_peak, matmul_share, multiply_adds, saved_bytes, times
from torch.profiler import ProfilerActivity, profile

from mmengine_agent.run.exit import run_tool

BASELINES = ("ours", "published", "softmax")
KINDS = {  # of kernels, by what their names hold; the first that fits
    "products": ("mm", "bmm", "_linear_pointwise"),
    "convolutions": ("convolution", "conv2d"),
    "softmax": ("softmax", "exp2", "amax"),
    "GELU": ("gelu",),
    "norms": ("layer_norm",),
    "pools, resizes": ("pool", "upsample"),
    "copies": ("copy_", "cat", "fill_", "zero_"),
    "the rest": ("",),
}
_NO_KERNELS = (  # views, memory without numbers, and operations that only call others
    "view _unsafe_view _reshape_alias as_strided select slice narrow transpose t permute expand "
    "unbind split split_with_sizes chunk flatten unflatten unsqueeze squeeze detach alias reshape "
    "empty empty_like empty_strided new_empty resize_ zeros new_zeros zeros_like ones_like "
    "contiguous clone to linear matmul conv2d convolution _convolution layer_norm dropout "
    "thnn_conv2d adaptive_avg_pool2d softmax scaled_dot_product_attention mT "
    "resolve_conj as_strided_ is_nonzero item _local_scalar_dense select_backward _to_copy zero_"
)
NO_KERNELS = frozenset(_NO_KERNELS.split())
TITLES = ("model", "size", "mode", "baseline", "ms", "of peak", "kernels", "Python", "nodes", "MiB")

Record = dict[str, Any]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_flags(parser, ["pvt-t"])
    sizes = ["256x320", "512x512", "800x1344"]
    parser.add_argument("--sizes", nargs="+", default=sizes, metavar="HxW", help="%(default)s")
    parser.add_argument("--agents", choices=["published", "rule", "bounded"], default="published")
    parser.add_argument("--mode", choices=MODES, nargs="+", default=MODES, help="both by default")
    parser.add_argument(
        "--baselines", type=one_of(BASELINES), nargs="+", default=[list(BASELINES)], metavar="NAME"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    records: list[Record] = []
    for name, size, mode in itertools.product(flat(args.models), args.sizes, args.mode):
        height, width = map(int, size.split("x"))
        setting = read_setting(args, (height, width))
        reporting.say(f"{name}, {size}, {mode}, {args.repeats} rounds ...")
        wanted = compared(name, flat(args.baselines), mode)
        found = profiled(name, wanted, mode, setting, args.repeats, args.agents)
        records += [{"size": size, **record} for record in found]
        head = {**reporting.header(), **setting.described(), "agents": args.agents}
        reporting.write_json(Path(args.out) / "profiling.json", {**head, "records": records})
    draw(Path(args.out) / "profiling.png", records)
    print(as_table(records))
    print(f"written: {args.out}/profiling.json, {args.out}/profiling.png")


def profiled(
    name: str, baselines: list[str], mode: str, setting: Setting, repeats: int, agents: str
) -> list[Record]:
    """A record a baseline; all are timed in turns."""
    steps = {b: Step(model_of(name, b, agents), setting, mode) for b in baselines}
    product, flops = matmul_peak(setting.dtype, setting.device)
    found = times({"peak": product, **steps}, repeats, settle=mode == "training")
    peak = flops / statistics.median(found["peak"])
    records = []
    for baseline, step in steps.items():
        twin = model_of(name, "published" if baseline == "ours" else baseline, agents)
        macs = multiply_adds(twin, setting.shape) * (3 if mode == "training" else 1)
        median = statistics.median(found[baseline])
        records.append(
            {
                **{"model": name, "baseline": baseline, "mode": mode, "median": median},
                **{"times": found[baseline], "share_of_peak": matmul_share(macs, median, peak)},
                **recorded(step),
            }
        )
    return records


def model_of(name: str, baseline: str, agents: str) -> torch.nn.Module:
    key = "agent_shape" if name.startswith("vit") else "agent_shapes"
    return build(name, baseline, **({} if baseline == "softmax" else {key: agents}))


def recorded(step: Step) -> Record:
    """What a step consists of; seconds and numbers of kernels by kind."""
    with profile(activities=[ProfilerActivity.CPU]) as record:
        step()
    seconds: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for event in record.key_averages():
        space, _, name = event.key.rpartition("::")
        if space in ("aten", "mkldnn") and name not in NO_KERNELS:
            kind = next(k for k, parts in KINDS.items() if any(part in name for part in parts))
            seconds[kind] += event.self_cpu_time_total / 1e6
            kernels[kind] += event.count
    training = step.mode == "training"
    return {
        **{"seconds": dict(seconds), "kernels": dict(kernels), "python_calls": python_calls(step)},
        "nodes": nodes(step) if training else None,
        "saved_bytes": saved_bytes(step.forward) if training else None,
    }


def python_calls(step: Step) -> int:
    """Calls of functions, Python's own and built-in ones, that a step makes."""
    count = 0

    def see(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        step()
    finally:
        sys.setprofile(None)
    return count


def nodes(step: Step) -> int:
    """Nodes of the graph that a forward leaves to autograd."""
    seen, ahead = set(), [out.grad_fn for out in step.forward()]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [following for following, _ in node.next_functions]
    return len(seen)


def as_table(records: list[Record]) -> str:
    """A row a record, with the share of each kind in the time of all kernels."""
    rows = []
    for record in records:
        whole = sum(record["seconds"].values())
        shares = [100 * record["seconds"].get(kind, 0) / whole for kind in KINDS]
        rows.append(
            [
                *(record[key] for key in ("model", "size", "mode", "baseline")),
                reporting.milliseconds(record["median"]),
                f"{100 * record['share_of_peak']:.0f} %",
                str(sum(record["kernels"].values())),
                str(record["python_calls"]),
                str(record["nodes"] or "-"),
                reporting.mebibytes(record["saved_bytes"]),
                *(f"{share:.0f} %" for share in shares),
            ]
        )
    return reporting.table([*TITLES, *KINDS], rows, labels=4)


def draw(path: Path, records: list[Record]) -> None:
    """A bar a record: its kernels' seconds by kind, one on top of the other."""
    figure, axes = reporting.subplots(1, 1)
    axis, bottom = axes[0, 0], [0.0] * len(records)
    for kind in KINDS:
        heights = [1e3 * record["seconds"].get(kind, 0) for record in records]
        axis.bar(range(len(records)), heights, bottom=bottom, label=kind)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    labels = [f"{r['baseline']}, {r['size']}, {r['mode']}" for r in records]
    axis.set_xticks(range(len(records)), labels, rotation=90)
    axis.set_ylabel("ms of kernels")
    axis.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run_tool(main)
