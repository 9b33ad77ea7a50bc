"""Memory of whole detectors and segmentors on large images, by part.

    python benchmarks/large_images.py
    python benchmarks/large_images.py --models semantic-fpn/pvt-t --sizes 4320x7680 --limit-gib 16
    python benchmarks/large_images.py --models semantic-fpn/pvt-t --forms ours,plain --compare
    python benchmarks/large_images.py --config CONFIG --checkpoint FILE --sizes 2160x3840

Each image is predicted in a process of its own, as ``tools/predict.py --max-memory`` does: as a
whole, not made smaller. A part's peak is that of the process while it runs, with all that lives on
from before. Forms: ours; upstream, with mmseg's scores of all classes and mmdet's masks at the
image's size; plain, with the definitions of attention and no executor. Weights are random unless
given, thresholds so low that a detector finds all that it may. Writes DIR/large_images.json after
each process, and what is the largest image in 8 and in 16 GB, extrapolated by the last two sizes.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import reporting
import torch
from candidates import at_least, flat, one_of
from mixers import size as read_hw

from agent_attention.compute.guard import using
from mmengine_agent.backbone_flags import BackboneFlags
from mmengine_agent.errors import UserError
from mmengine_agent.predict.memory import read_peak, restart_peak
from mmengine_agent.predict.model import Predictor, load_model
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import read_config
from mmengine_agent.task import task_of

ROOT = Path(__file__).resolve().parent.parent
HEADS = {
    "semantic-fpn": "agent_pvt/fpn_agent-pvt-t_8xb2-40k_ade20k-512x512.py",
    "upernet": "agent_swin/upernet_agent-swin-t_8xb2-160k_ade20k-512x512.py",
    "retinanet": "agent_pvt/retinanet_agent-pvt-t_fpn_1x_coco.py",
    "mask-rcnn": "agent_pvt/mask-rcnn_agent-pvt-t_fpn_1x_coco.py",
    "cascade": "agent_swin/cascade-mask-rcnn_agent-swin-t_fpn_1x_coco.py",
}
BACKBONES = {"pvt-t": "agent_pvt_t", "swin-t": "agent_swin_t"}
MODELS = [f"{head}/{backbone}" for head in HEADS for backbone in BACKBONES]
FORMS = ("ours", "upstream", "plain")
SIZES = ((1080, 1920), (1440, 2560), (2160, 3840), (4320, 7680))
# what ends with the call of which module of a model
ENDS = {
    "preparation": ("data_preprocessor",),
    "backbone": ("backbone",),
    "neck": ("neck",),
    "proposals": ("rpn_head",),
    "head": ("decode_head.conv_seg", "bbox_head", "roi_head.bbox_head", "roi_head.mask_head"),
}
REST = "results"
LARGEST = (8, 16)  # GB
Record = dict[str, Any]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--models", type=one_of(MODELS), nargs="+", default=[MODELS], metavar="NAME")
    add("--config", help="in place of --models")
    add("--checkpoint", help="of the config")
    add("--forms", type=one_of(FORMS), nargs="+", default=[["ours"]], metavar="NAME")
    add("--sizes", type=read_hw, nargs="+", default=SIZES[:3], metavar="HxW", help="in pixels")
    add("--limit-gib", type=float, help="of a process's data, set by the system (RLIMIT_DATA)")
    add("--max-memory-gib", type=float, default=12.0, help="leave out what takes more; 12")
    add("--compare", action="store_true", help="labels of a segmentor's forms with the first's")
    add("--threads", type=at_least(1), help="CPU threads of torch")
    add("--out", default="work_dirs/benchmarks", metavar="DIR", help="%(default)s")
    add("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.child:
        print(json.dumps(measure(json.loads(args.child))))
        return
    path = Path(args.out, "large_images.json")
    head, records = reporting.header(), []
    head["limit_gib"] = args.limit_gib
    models = [args.config] if args.config else flat(args.models)
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            for form in flat(args.forms):
                known: list[Record] = []
                for size in sorted(args.sizes, key=math.prod):
                    case = describe(args, model, form, size)
                    case["labels"] = str(Path(folder, f"{form}-{size[0]}.npy"))
                    record = run_case(case, known, args.max_memory_gib * 2**30)
                    known.append(record)
                    if args.compare and form != flat(args.forms)[0] and "peak" in record:
                        first = Path(folder, f"{flat(args.forms)[0]}-{size[0]}.npy")
                        record["equal"] = compare(first, Path(case["labels"]))
                    records.append(record)
                    reporting.write_json(path, {**head, "records": records})
    print(as_table(records), largest_table(records), sep="\n\n")
    print(f"written: {path}")


def describe(args: argparse.Namespace, model: str, form: str, size: tuple[int, int]) -> Record:
    """What a process is to measure."""
    case = {"model": model, "form": form, "size": list(size), "checkpoint": args.checkpoint}
    head, _, backbone = model.partition("/")
    known = head in HEADS and not args.config
    case["config"] = str(ROOT / "configs" / HEADS[head]) if known else model
    case["backbone"] = BACKBONES[backbone] if known else None
    return {**case, "threads": args.threads, "limit": args.limit_gib, "compare": args.compare}


def run_case(case: Record, known: list[Record], most: float) -> Record:
    """The record of a case: measured in a process of its own, or why it is not."""
    kept = {key: case[key] for key in ("model", "form", "size", "limit")}
    expected = extrapolate([each for each in known if "peak" in each], math.prod(case["size"]))
    if expected > most or any("skipped" in each for each in known):
        return {**kept, "skipped": "larger than allowed", "expected": expected or None}
    reporting.say(f"{case['model']}, {case['form']}: {case['size'][0]} x {case['size'][1]} ...")
    return {**kept, **measure_apart(case)}


def measure_apart(case: Record) -> Record:
    """``measure`` in a process of its own; why there is nothing, if that fails."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", json.dumps(case)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {"skipped": f"ended with {done.returncode}"}
    found: Record = json.loads(done.stdout.splitlines()[-1])
    return found


def extrapolate(done: list[Record], pixels: int) -> float:
    """Peak expected by the last two records; 0 if there are none."""
    if len(done) < 2:
        return 0.0
    (p1, m1), (p2, m2) = ((math.prod(each["size"]), each["peak"]) for each in done[-2:])
    return m2 + (m2 - m1) / (p2 - p1) * (pixels - p2)


def compare(first: Path, second: Path) -> dict[str, float]:
    """The share of equal labels of two label maps: everywhere, and in the middle quarter."""
    same = np.load(first) == np.load(second)
    height, width = same.shape
    middle = same[height // 4 : -height // 4, width // 4 : -width // 4]
    return {"whole": float(same.mean()), "middle": float(middle.mean())}


# ---- in a process of its own


class Marks:
    """Peak memory and seconds by part of a forward."""

    def __init__(self, model: Any) -> None:
        self.parts: dict[str, dict[str, float]] = {}
        self.last = time.perf_counter()
        for part, names in ENDS.items():
            for name in names:
                for module in modules(model, name):
                    module.register_forward_hook(lambda *_, part=part: self.end(part))
        restart_peak()

    def end(self, part: str) -> None:
        """Add what was since the last mark to a part."""
        now, peak = time.perf_counter(), read_peak() or 0
        old = self.parts.get(part, {"peak": 0, "seconds": 0.0})
        self.parts[part] = {
            "peak": max(old["peak"], peak),
            "seconds": old["seconds"] + now - self.last,
        }
        self.last = now
        restart_peak()


def modules(model: Any, name: str) -> list[Any]:
    """The modules of a name; those of a list, where it is one, and none where there is none."""
    found = model
    for each in name.split("."):
        found = getattr(found, each, None)
    if found is None:
        return []
    return list(found) if isinstance(found, torch.nn.ModuleList) else [found]


def measure(case: Record) -> Record:
    """Predict one image and say what it took.

    Raises:
        UserError: if memory runs out, or cannot be measured here.
    """
    if case["limit"]:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (int(case["limit"] * 2**30), hard))
    if case["threads"]:
        torch.set_num_threads(case["threads"])
    if not restart_peak():
        raise UserError("the peak of a process's memory is not told here (Linux tells it)")
    cfg = read_config(case["config"], None, BackboneFlags(case["backbone"]))
    torch.manual_seed(0)
    model = load_model(cfg, case["checkpoint"], torch.device("cpu"))[0]
    find_all(model)
    if case["form"] != "upstream":
        task_of(cfg).save_memory(model)
    predictor, image = Predictor(model, cfg, full_size=True), blots(*case["size"])
    marks = Marks(model)
    with using(way="plain") if case["form"] == "plain" else nullcontext():
        (sample,) = predictor([image])
    marks.end(REST)
    if case["compare"] and "pred_sem_seg" in sample:
        np.save(case["labels"], sample.pred_sem_seg.data[0].numpy().astype(np.int16))
    peak = max(marks.parts.values(), key=lambda part: part["peak"])["peak"]
    found = len(sample.pred_instances) if "pred_instances" in sample else None
    seconds = sum(part["seconds"] for part in marks.parts.values())
    return {"peak": peak, "seconds": seconds, "objects": found, "parts": marks.parts}


def find_all(model: Any) -> None:
    """Have a detector with random weights find as many objects as it may."""
    roi = getattr(model, "roi_head", None)
    if roi is not None:
        roi.test_cfg.score_thr = 0.0
    elif getattr(model, "bbox_head", None) is not None:
        model.bbox_head.init_weights()  # else each of millions of anchors is an object


def blots(height: int, width: int) -> np.ndarray:
    """An image (H, W, 3) of coloured blots of 40 pixels."""
    small = np.random.default_rng(0).integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


# ---- results


def as_table(records: list[Record]) -> str:
    parts = [*ENDS, REST]
    rows = []
    for each in records:
        place = [each["model"], each["form"], "{} x {}".format(*each["size"])]
        if "peak" not in each:
            more = f" ({gigabytes(each['expected'])} GB)" if each.get("expected") else ""
            rows.append([*place, *"-" * (len(parts) + 2), each["skipped"] + more])
            continue
        peaks = [gigabytes(each["parts"].get(part, {}).get("peak")) for part in parts]
        notes = [f"{each['objects']} objects"] if each["objects"] is not None else []
        notes += [f"{share:.6f} equal ({where})" for where, share in each.get("equal", {}).items()]
        times = reporting.decimals(each["seconds"], 1)
        rows.append([*place, gigabytes(each["peak"]), *peaks, times, ", ".join(notes)])
    titles = ("model", "form", "pixels", "peak GB", *parts, "seconds", "")
    return reporting.table(titles, rows, labels=3)


def largest_table(records: list[Record]) -> str:
    """The largest image of each model and form, as megapixels and as sides of 9 : 16."""
    rows = []
    for model, form in dict.fromkeys((each["model"], each["form"]) for each in records):
        done = [r for r in records if (r["model"], r["form"]) == (model, form) and "peak" in r]
        if len(done) < 2:
            continue
        base = extrapolate(done, 0)
        slope = extrapolate(done, 1) - base
        cells = []
        for most in LARGEST:
            pixels = (most * 1e9 - base) / slope
            sides = f"{math.sqrt(pixels * 9 / 16):.0f} x {math.sqrt(pixels * 16 / 9):.0f}"
            cells += [f"{pixels / 1e6:.1f}", sides]
        rows.append([model, form, f"{slope:.0f}", f"{base / 1e9:.2f}", *cells])
    titles = [f"{text} in {most} GB" for most in LARGEST for text in ("megapixels", "9:16")]
    return reporting.table(("model", "form", "bytes a pixel", "base GB", *titles), rows, labels=2)


def gigabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e9:.2f}"


if __name__ == "__main__":
    run_tool(main)
