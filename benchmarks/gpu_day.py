"""What ``gpu_day.sh`` runs on a machine with a GPU: checks of numbers, times and memory, a report.

    python benchmarks/gpu_day.py                        # on the GPU, all of it
    python benchmarks/gpu_day.py --parts times --types bfloat16 --settings 2x800x1344

Writes DIR/checks.json and DIR/times.json, and DIR/report.md of what there is. The forms of a
backbone take turns: ``ours``; ``plain``, ours with executors off; ``published``, the plain
formulation; ``softmax``, mmdet's PVT or Swin, left out where there is no mmdet; ``reduced`` and
``windows``, our blocks with the softmax attention of PVT or Swin in all stages. Exit code 1 if a
check does not pass.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gpu_checks
import reporting
import torch
from candidates import DTYPES, MODELS, MODES, SOFTMAX, Setting, Step, at_least, build, flat, one_of
from measure import times

from agent_attention.compute.guard import using
from mmengine_agent.errors import UserError
from mmengine_agent.run.exit import run_tool

PARTS = ("checks", "times")
TYPES = ("float32", "tf32", "bfloat16", "float16")  # tf32: float32 with products in TensorFloat-32
OWN_SOFTMAX = {"pvt": "reduced", "swin": "windows"}  # the mixer of the softmax backbone
TIMED = ["pvt-t", "swin-t"]
SETTINGS = ((2, 800, 1344), (4, 512, 512), (8, 256, 320))  # batch, height, width
TITLES = (
    *("model", "images", "type", "ms", "plain", "published", "softmax", "own softmax", "MiB"),
    *("of published", "kept, of published"),
)
Record = dict[str, Any]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", type=one_of(PARTS), nargs="+", default=[list(PARTS)], metavar="NAME")
    add("--check", type=one_of(MODELS), nargs="+", default=[gpu_checks.CHECKED], metavar="MODEL")
    add("--check-size", type=at_least(32), nargs=2, default=(224, 320), metavar=("H", "W"))
    add("--compile", type=one_of(MODELS), nargs="*", default=[TIMED], metavar="MODEL")
    add("--backend", default="inductor", help="of torch.compile (%(default)s)")
    add("--models", type=one_of(SOFTMAX_MODELS), nargs="+", default=[TIMED], metavar="NAME")
    add("--types", type=one_of(TYPES), nargs="+", default=[list(TYPES)], metavar="TYPE")
    add("--settings", type=setting, nargs="+", default=SETTINGS, metavar="BxHxW")
    add("--rounds", type=at_least(1), default=7, help="%(default)s")
    add("--device", choices=["cpu", "cuda"], default="cuda", help="%(default)s")
    add("--out", type=Path, default=Path("work_dirs/gpu_day"), metavar="DIR", help="%(default)s")
    return parser.parse_args()


SOFTMAX_MODELS = [name for name, (family, _) in MODELS.items() if family in SOFTMAX]


def setting(text: str) -> tuple[int, int, int]:
    """Type of a flag: '2x800x1344' is (2, 800, 1344).

    Raises:
        ArgumentTypeError: if it is not three numbers.
    """
    found = [int(part) for part in text.split("x") if part.isdecimal()]
    if len(found) != 3 or text.count("x") != 2 or min(found[1:]) < 32:
        raise argparse.ArgumentTypeError(f"{text!r} is no BxHxW with sides from 32")
    return found[0], found[1], found[2]


def main() -> None:
    args = parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU; try --device cpu")
    if "checks" in flat(args.parts):
        check(args)
    if "times" in flat(args.parts):
        measure(args)
    report = write_report(args.out)
    print(report)
    failed = [each for each in read(args.out, "checks") if not each["passed"]]
    if failed:
        sys.exit(1)


# --- checks


def check(args: argparse.Namespace) -> None:
    """Check, and write after each figure."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    size, device = (args.check_size[0], args.check_size[1]), torch.device(args.device)
    names = flat(args.check), flat(args.compile)
    found: list[Record] = []
    for each in gpu_checks.check_all(*names, size, device, args.backend):
        found.append({**each._asdict(), "passed": each.passed})
        write(args.out, "checks", found)
        if not each.passed:
            reporting.say(f"not passed: {each}")


# --- times


def measure(args: argparse.Namespace) -> None:
    """Measure, and write after each setting."""
    found: list[Record] = []
    compared = {name: forms(name) for name in flat(args.models)}
    for batch, *sides in args.settings:
        for name, models in compared.items():
            for kind in flat(args.types):
                reporting.say(f"{name}, {batch} x {sides[0]} x {sides[1]}, {kind} ...")
                dtype = DTYPES["float32" if kind == "tf32" else kind]
                given = Setting(torch.device(args.device), dtype, batch, (sides[0], sides[1]))
                for mode in MODES:
                    for record in measured(models, given, kind, mode, args.rounds):
                        found.append({"model": name, **record})
                write(args.out, "times", found)


def forms(name: str) -> dict[str, torch.nn.Module]:
    """The backbones that are compared, by the name of their form."""
    family = MODELS[name][0]
    own = OWN_SOFTMAX[family]
    models = {form: build(name, form) for form in ("ours", "published")}
    models["plain"] = Plain(build(name, "ours"))
    models[own] = build(name, "ours", mixers=(own,) * 4)
    if find_spec("mmdet"):
        models["softmax"] = build(name, "softmax")
    return models


class Plain(torch.nn.Module):
    """A backbone whose executors are switched off."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        """Images (B, 3, H, W) to maps."""
        with using(way="plain"):
            return self.model(x)


def measured(
    models: dict[str, torch.nn.Module], given: Setting, kind: str, mode: str, rounds: int
) -> Iterator[Record]:
    """A record a form; one that needs too much memory has a note in place of figures."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind == "tf32"
    steps = {form: Step(model, given, mode) for form, model in models.items()}
    notes: dict[str, str] = {}
    for form, step in steps.items():
        try:
            step.first()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            notes[form] = "out of memory"
    running = {form: step for form, step in steps.items() if form not in notes}
    seconds = times(running, rounds, settle=mode == "training")
    for form in steps:
        record = {**given.described(), "form": form, "mode": mode, "type": kind}
        if form in notes:
            yield {**record, "note": notes[form]}
        else:
            median = statistics.median(seconds[form])
            yield {**record, "median": median, "times": seconds[form], **steps[form].memory()}


# --- the report


def write(folder: Path, part: str, records: list[Record]) -> None:
    reporting.write_json(folder / f"{part}.json", {**reporting.header(), "records": records})


def read(folder: Path, part: str) -> list[Record]:
    """The records of a part; none where it has not run."""
    path = folder / f"{part}.json"
    return json.loads(path.read_text())["records"] if path.is_file() else []


def write_report(folder: Path) -> str:
    """Write ``report.md`` of the parts that there are; its text."""
    lines = ["# Checks and times"]
    tests = folder / "tests.txt"
    if tests.is_file():
        lines += [f"Tests on the device: {tests.read_text().splitlines()[-1].strip('= ')}."]
    for part in PARTS:
        path = folder / f"{part}.json"
        if path.is_file():
            head = json.loads(path.read_text())
            machine = head["gpu"] or f"{head['cpu']}, {head['threads']} thread(s)"
            where = f"{machine}, torch {head['torch']}, {head['date'][:10]}: `{head['command']}`"
            table = checks_table if part == "checks" else times_table
            lines += [f"## {part.capitalize()}", where, table(head["records"])]
    text = "\n\n".join(lines) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text)
    return text


def checks_table(records: list[Record]) -> str:
    """A line for each kind of check: the worst figure, where it is, and the limit."""
    rows = []
    for what in dict.fromkeys(each["what"] for each in records):
        own = [each for each in records if each["what"] == what]
        pick = min if own[0]["at_least"] else max
        worst = pick(own, key=lambda each: float(each["figure"]))
        sign = "≥" if own[0]["at_least"] else "≤"
        failed = [each["where"] for each in own if not each["passed"]]
        verdict = f"not passed: {', '.join(failed)}" if failed else f"{len(own)} passed"
        limit = f"{sign} {worst['limit']:.0e}"
        rows.append([what, f"{worst['figure']:.1e}", worst["where"], limit, verdict])
    return reporting.markdown(["check", "worst", "of", "limit", ""], rows)


def times_table(records: list[Record]) -> str:
    """A table a mode: our milliseconds, other forms as multiples of ours, and memory."""
    parts = []
    for mode in MODES:
        by: dict[tuple[Any, ...], dict[str, Record]] = {}
        for each in records:
            if each["mode"] == mode:
                key = (each["model"], each["batch"], *each["size"], each["type"])
                by.setdefault(key, {})[each["form"]] = each
        rows = [times_row(key, by[key]) for key in by]
        parts += [f"**{mode.capitalize()}**", reporting.markdown(list(TITLES), rows)]
    return "\n\n".join(parts)


def times_row(key: tuple[Any, ...], forms: dict[str, Record]) -> list[str]:
    """Times are those of the other form over ours, memory is ours over the other's."""
    name, batch, height, width, kind = key
    own = OWN_SOFTMAX[MODELS[name][0]]

    def over(form: str, figure: str, inverse: bool = False) -> str:
        pair = forms.get(form, {}).get(figure), forms["ours"].get(figure)
        if not pair[0] or not pair[1]:
            return str(forms.get(form, {}).get("note", "-"))
        return f"{pair[1] / pair[0] if inverse else pair[0] / pair[1]:.2f}"

    return [
        *(name, f"{batch} x {height} x {width}", kind),
        reporting.milliseconds(forms["ours"].get("median")),
        *(over(form, "median") for form in ("plain", "published", "softmax", own)),
        reporting.mebibytes(forms["ours"].get("peak_memory")),
        over("published", "peak_memory", inverse=True),
        over("published", "saved_bytes", inverse=True),
    ]


if __name__ == "__main__":
    run_tool(main)
