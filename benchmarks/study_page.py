"""Tables and plots of the study's results, in a folder or in the page ``docs/mixers.md``.

    python benchmarks/study_page.py                             # from the results that are kept
    python benchmarks/study_page.py --study work_dirs/study     # and from new ones, which are kept

Kept results are lines of ``benchmarks/results/mixers_study.jsonl``, one a run. The tables of costs
are made of the files ``benchmarks/results/costs_*.json``, each as ``mixers.py`` wrote it (--table
keeps further ones); of what was measured twice, the newer counts.
Results count as one group, and are compared, if their task, data and plan are the same.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import reporting
from costs_page import COSTS_PICTURE, by_machine, costs_name, costs_text, newest_costs
from mixers_report import draw as draw_costs

from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file
from mmengine_agent.run.exit import run_tool

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks/results"
PAGE = ROOT / "docs/mixers.md"
PICTURE = "images/mixers_study.png"  # from the page
MAIN = {"segmentor": ("mIoU", "mIoU"), "detector": ("coco/bbox_mAP_50", "box AP50")}
PLAN = ("budget", "batch", "size", "rate", "bfloat16")
NAMES = {"segmentor": "Semantic FPN", "detector": "RetinaNet"}

Record = dict[str, Any]


def write_summary(folder: Path) -> str:
    """Write ``summary.md``, with its plots, into a folder of results; its text."""
    records = unique(read_folder(folder))
    text = study_text(records)
    write_file(folder / "summary.md", text + "\n")
    if records:
        draw(folder / PICTURE, records)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--study", type=Path, metavar="DIR", help="keep the results of this folder too")
    add("--table", type=Path, nargs="+", default=[], metavar="FILE", help="keep this mixers.json")
    add("--kept", type=Path, default=KEPT, metavar="DIR", help="where results are kept")
    add("--page", type=Path, default=PAGE, metavar="FILE", help="the page that is written")
    args = parser.parse_args()
    for folder in (args.kept, args.page.parent / "images"):
        folder.mkdir(parents=True, exist_ok=True)
    kept = args.kept / "mixers_study.jsonl"
    records = unique([*read_lines(kept), *(read_folder(args.study) if args.study else [])])
    write_file(kept, "".join(json.dumps(record) + "\n" for record in records))
    for table in args.table:
        shutil.copyfile(table, args.kept / costs_name(json.loads(table.read_text())))
    parts = {"study": study_text(records)}
    reports = [json.loads(path.read_text()) for path in sorted(args.kept.glob("costs_*.json"))]
    if reports:
        groups = by_machine(reports)
        parts["costs"] = costs_text(groups)
        draw_costs(args.page.parent / COSTS_PICTURE, newest_costs(groups[0]))
    write_page(args.page, parts)
    if records:
        draw(args.page.parent / PICTURE, records)
    print(f"written: {args.page}, from {len(records)} runs")


# --- results


def read_folder(folder: Path) -> list[Record]:
    """The results of the runs that have ended in a folder of ``mixers.py --study``."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*-seed*.json"))]


def read_lines(path: Path) -> list[Record]:
    """The results that are kept."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def unique(records: Iterable[Record]) -> list[Record]:
    """One result a run, the last of those given, in the order of groups, mixers and seeds."""
    by = {(*group_of(each), each["mixer"], each["seed"]): each for each in records}
    return [by[key] for key in sorted(by, key=str)]


def group_of(record: Record) -> tuple[Any, ...]:
    """What results have in common that may be compared."""
    return record["task"], record["data"], *(record[key] for key in PLAN)


def grouped(records: list[Record]) -> dict[tuple[Any, ...], list[Record]]:
    """Results by group."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(group_of(record), []).append(record)
    return groups


def score(record: Record, factor: str) -> float:
    """The score of a run by which mixers are ranked, at a factor of the training resolution."""
    return float(record["scores"][factor][MAIN[record["task"]][0]])


def mean_and_spread(values: list[float]) -> str:
    """'0.512 ± 0.021', the standard deviation over seeds; a single run has none."""
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def by_mixer(records: list[Record]) -> dict[str, list[Record]]:
    """The runs of each mixer, the best at the training resolution first."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["mixer"], []).append(record)
    order = {name: statistics.mean(score(r, "1") for r in own) for name, own in found.items()}
    return {name: found[name] for name in sorted(order, key=lambda name: -order[name])}


# --- text


def study_text(records: list[Record]) -> str:
    """A heading, the conditions and a table for each group."""
    parts = [group_text(own) for own in grouped(records).values()]
    picture = f"![Score of each mixer at three resolutions, a dot a run]({PICTURE})"
    return "\n\n".join([*parts, picture] if parts else ["No run has ended yet."])


def group_text(records: list[Record]) -> str:
    """The conditions and the scores of one group."""
    first, factors = records[0], list(records[0]["scores"])
    rows = []
    for name, own in by_mixer(records).items():
        losses = mean_and_spread([record["last_loss"] for record in own])
        cells = [mean_and_spread([score(r, factor) for r in own]) for factor in factors]
        gain = [score(r, factors[-1]) - score(r, factors[0]) for r in own]
        seeds = ", ".join(str(record["seed"]) for record in own)
        rows.append([f"`{name}`", *cells, f"{statistics.mean(gain):+.3f}", losses, seeds])
    titles = [f"{MAIN[first['task']][1]} at {factor}x" for factor in factors]
    change = f"{factors[0]}x to {factors[-1]}x"
    table = reporting.markdown(["mixer", *titles, change, "last loss", "seeds"], rows)
    return f"**{NAMES[first['task']]}, {first['data']}**: {conditions(records)}\n\n{table}"


def conditions(records: list[Record]) -> str:
    """How a group was trained, and where."""
    first = records[0]
    number = "bfloat16 autocast" if first["bfloat16"] else "float32"
    machines = {(r["gpu"] or f"{r['cpu']}, {r['threads']} thread(s)", r["torch"]) for r in records}
    where = "; ".join(f"{device}, torch {torch}" for device, torch in sorted(machines))
    images = first["budget"] * first["batch"]
    return (
        f"{first['budget']} iterations of {first['batch']} images of {first['size']} pixels "
        f"({images} images in all), learning rate {first['rate']:g}, {number}; {where}."
    )


def write_page(page: Path, parts: dict[str, str]) -> None:
    """Put each part between its two marks, ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``.

    Raises:
        UserError: if the page lacks the marks.
    """
    text = page.read_text()
    for name, part in parts.items():
        marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, begin, rest = text.partition(marks[0])
        _, end, after = rest.partition(marks[1])
        if not (begin and end):
            raise UserError(f"{page} has no place for the {name}: {marks[0]} {marks[1]}")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    write_file(page, text)


# --- plots


def draw(path: Path, records: list[Record]) -> None:
    """A plot a group: the scores of each mixer at the three resolutions, a dot a run."""
    groups = grouped(records)
    figure, axes = reporting.subplots(len(groups), 2)
    for row, own in zip(axes, groups.values(), strict=True):
        mixers = by_mixer(own)
        for number, factor in enumerate(own[0]["scores"]):
            style = {"color": f"C{number}"}
            for place, (_, runs) in enumerate(mixers.items()):
                values = [score(run, factor) for run in runs]
                label = f"{factor}x" if not place else None
                where = place + (number - 1) * 0.22
                row[0].plot([where] * len(values), values, ".", **style)
                row[0].plot(where, statistics.mean(values), "_", ms=11, label=label, **style)
        row[0].set_xticks(range(len(mixers)), list(mixers), rotation=60, ha="right")
        row[0].set(ylabel=MAIN[own[0]["task"]][1], title=f"{own[0]['task']}, {own[0]['data']}")
        row[0].legend(title="mean at", fontsize="small")
        draw_change(row[1], mixers)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def draw_change(axis: Any, mixers: dict[str, list[Record]]) -> None:
    """How a score changes with the resolution: score over that at the training resolution."""
    for number, (name, runs) in enumerate(mixers.items()):
        factors = list(runs[0]["scores"])
        base = statistics.mean(score(run, factors[0]) for run in runs)
        ys = [statistics.mean(score(run, f) for run in runs) - base for f in factors]
        style = "-" if number < 10 else "--"
        axis.plot([float(f) for f in factors], ys, style, marker="o", label=name)
    axis.set(xlabel="resolution of testing over that of training", ylabel="change of the score")
    axis.legend(fontsize="x-small")


if __name__ == "__main__":
    run_tool(main)
