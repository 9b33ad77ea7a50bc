"""Tables and plots of ``resolution.py``'s results, in the page ``docs/high_resolution.md``.

    python benchmarks/resolution_page.py                                # from what is kept
    python benchmarks/resolution_page.py --study work_dirs/resolution   # and new results

Kept are ``benchmarks/results/resolution.jsonl``, a line a run, and ``resolution_costs_*.json``.
Differences are between two tests of the same trained model, and ± is their standard deviation
over seeds: it leaves out by how much two trainings differ.
"""

import argparse
import json
import shutil
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import reporting
from resolution_agents import PLACES, SETTINGS, TRAINED
from study_config import CLASSES
from study_page import KEPT, ROOT, mean_and_spread, read_folder, read_lines, write_page

from mmengine_agent.files import write_file
from mmengine_agent.run.exit import run_tool

PAGE = ROOT / "docs/high_resolution.md"
PICTURES = {"scores": "images/resolution_scores.png", "costs": "images/resolution_costs.png"}
PLAN = ("data", "budget", "batch", "size", "rate", "bfloat16")
SCORES = {"mIoU": "mIoU", "small": "mIoU of the three smallest classes"}
SMALL = 3  # classes

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--study", type=Path, metavar="DIR", help="keep the results of this folder too")
    add("--kept", type=Path, default=KEPT, metavar="DIR", help="where results are kept")
    add("--page", type=Path, default=PAGE, metavar="FILE", help="the page that is written")
    args = parser.parse_args()
    for folder in (args.kept, args.page.parent / "images"):
        folder.mkdir(parents=True, exist_ok=True)
    kept = args.kept / "resolution.jsonl"
    records = unique([*read_lines(kept), *(read_folder(args.study) if args.study else [])])
    write_file(kept, "".join(json.dumps(record) + "\n" for record in records))
    keep_costs(args.study, args.kept)
    texts = [group_text(own) for own in groups(records)]
    texts += [f"![Change of mIoU by the agents of the test]({PICTURES['scores']})"] * bool(texts)
    parts = {"study": "\n\n".join(texts) or "No run has ended yet."}
    costs = [json.loads(path.read_text()) for path in sorted(args.kept.glob("resolution_costs_*"))]
    texts = [costs_text(report) for report in costs]
    texts += [f"![Time and memory over the side of the image]({PICTURES['costs']})"] * bool(texts)
    parts["costs"] = "\n\n".join(texts) or "Not measured yet."
    write_page(args.page, parts)
    if records:
        draw_scores(args.page.parent / PICTURES["scores"], groups(records))
    if costs:
        draw_costs(args.page.parent / PICTURES["costs"], costs)
    print(f"written: {args.page}, from {len(records)} runs")


def keep_costs(study: Path | None, kept: Path) -> None:
    """Copy the costs of a study's folder to where results are kept, by the kind of machine."""
    path = study / "costs.json" if study else Path()
    if path.is_file():
        device = json.loads(path.read_text())["device"].partition(":")[0]
        shutil.copyfile(path, kept / f"resolution_costs_{device}.json")


# --- results


def unique(records: Iterable[Record]) -> list[Record]:
    """One result a run, the last of those given, in the order of the tables."""
    by = {(*(r[key] for key in PLAN), r["agents"], r["seed"]): r for r in records}
    order = {name: number for number, name in enumerate(TRAINED)}
    return sorted(by.values(), key=lambda r: (plan_of(r), order[r["agents"]], r["seed"]))


def plan_of(record: Record) -> str:
    """What results that may be compared have in common; scenes come first."""
    return json.dumps([record["data"] != "scenes", *(record[key] for key in PLAN)])


def groups(records: list[Record]) -> list[list[Record]]:
    """Results by plan."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(plan_of(record), []).append(record)
    return list(found.values())


def by_training(records: list[Record]) -> dict[str, list[Record]]:
    """Results of a group by the agents of the training."""
    found = {name: [r for r in records if r["agents"] == name] for name in TRAINED}
    return {name: own for name, own in found.items() if own}


def score(record: Record, place: str, agents: str, kind: str) -> float:
    """A key of ``SCORES``, from 0 to 1; the small classes are those of the fewest pixels."""
    found = record["scores"][place]
    known = [i for i, each in enumerate(found["iou"][agents]) if each is not None]
    if kind == "small":
        pixels = record["scores"]["1x"]["pixels"]
        smallest = sorted((i for i, each in enumerate(pixels) if each), key=pixels.__getitem__)
        known = [i for i in smallest[:SMALL] if i in known]
    return statistics.mean(found["iou"][agents][i] for i in known)


def gains(records: list[Record], place: str, agents: str, kind: str) -> list[float]:
    """What each model gains, in points, over the agents that it was trained with."""
    pairs = [[score(r, place, name, kind) for name in (agents, r["agents"])] for r in records]
    return [100 * (one - other) for one, other in pairs]


def is_clear(values: list[float]) -> bool:
    """Whether a mean is further from 0 than twice the standard deviation over seeds."""
    return len(values) > 1 and abs(statistics.mean(values)) > 2 * statistics.stdev(values)


# --- text


def group_text(records: list[Record]) -> str:
    """The conditions of a group, and its tables."""
    first = records[0]
    own = records[0]["scores"]["1x"]["pixels"]
    names = [CLASSES[first["data"]][i] for i in sorted(range(len(own)), key=own.__getitem__)]
    title = first["data"].capitalize()
    if first["data"] == "scenes":
        low, high = (round(each * first["size"]) for each in first["extent"])
        title += f" of {first['size']} pixels, shapes of {low} to {high}"
    number = "bfloat16 autocast" if first["bfloat16"] else "float32"
    machines = {f"{r['gpu'] or r['cpu']}, torch {r['torch']}" for r in records}
    seeds = sorted({r["seed"] for r in records})
    text = (
        f"### {title}\n\n"
        f"Trained for {first['budget']} iterations of {first['batch']} images of {first['size']} "
        f"pixels, learning rate {first['rate']:g}, {number}; seeds {', '.join(map(str, seeds))}; "
        f"{'; '.join(sorted(machines))}. The three smallest classes are "
        f"{', '.join(names[:SMALL])}: {100 * sum(sorted(own)[:SMALL]) / sum(own):.1f} % of pixels."
    )
    tables = [f"**{title}, tested with the agents of the training**" for title in SCORES.values()]
    parts = [text]
    for kind, title in zip(SCORES, tables, strict=True):
        parts += [title, trained_table(records, kind)]
    for kind, title in SCORES.items():
        change = f"**{title}: change in points by other agents in the test**"
        parts += [change, changed_table(records, kind)]
    return "\n\n".join(parts)


def trained_table(records: list[Record], kind: str) -> str:
    """A row a place, a column for each training, with its number of seeds: mean and spread."""
    trained = by_training(records)
    rows = []
    for place in places_of(records):
        cells = [
            mean_and_spread([score(r, place, r["agents"], kind) for r in own])
            for own in trained.values()
        ]
        rows.append([place, *cells])
    seeds = [f"{name} ({len(own)})" for name, own in trained.items()]
    return reporting.markdown(["test", *seeds], rows)


def changed_table(records: list[Record], kind: str) -> str:
    """A row a training and place, a column for each agents of the test; clear ones are bold."""
    rows, most = [], 0.0
    for name, own in by_training(records).items():
        for place in places_of(own):
            values = [gains(own, place, agents, kind) for agents in SETTINGS]
            most = max(most, *(abs(statistics.mean(each)) for each in values))
            rows.append([name, place, *map(gain_text, values)])
    if most < 0.05:
        return "None is more than 0.05."
    return reporting.markdown(["trained", "test", *SETTINGS], rows)


def gain_text(values: list[float]) -> str:
    """'+0.3 ± 0.2'; '0' where the grids, and so the scores, are the same."""
    if not any(values):
        return "0"
    text = f"{statistics.mean(values):+.1f}"
    text += f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"**{text}**" if is_clear(values) else text


def places_of(records: list[Record]) -> list[str]:
    """The places at which all were tested."""
    return [place for place in PLACES if all(place in r["scores"] for r in records)]


def costs_text(report: Record) -> str:
    """The table of costs of one machine."""
    rows = []
    for r in report["records"]:
        grids = " ".join("x".join(map(str, grid)) for grid in r["grids"])
        sides = "x".join(map(str, r["size"]))
        figures = [f"{r['multiply_adds'] / 1e9:.1f}", reporting.milliseconds(r["median"])]
        figures.append(reporting.mebibytes(r["peak_memory"]))
        rows.append([sides, ", ".join(r["agents"]), grids, *figures])
    machine = report["gpu"] or f"{report['cpu']}, {report['threads']} thread(s)"
    head = f"{machine}, {report['dtype']}, torch {report['torch']}, {report['date'][:10]}"
    titles = ["pixels", "agents", "grids", "G multiply-adds", "ms", "peak MiB"]
    return f"{head}:\n\n{reporting.markdown(titles, rows)}"


# --- plots


def draw_scores(path: Path, found: list[list[Record]]) -> None:
    """For each group and training: what other agents in the test change, at each place."""
    figure, axes = reporting.subplots(len(found), max(len(by_training(own)) for own in found))
    for row, records in zip(axes, found, strict=True):
        label = f"{records[0]['data']} at {records[0]['size']}"
        for axis in row:
            axis.set_visible(False)
        for axis, (name, own) in zip(row, by_training(records).items(), strict=False):
            axis.set_visible(True)
            places = places_of(own)
            for number, agents in enumerate(SETTINGS):
                each = [gains(own, place, agents, "mIoU") for place in places]
                xs = [i + 0.08 * (number - 3) for i in range(len(places))]
                spread = [statistics.stdev(v) if len(v) > 1 else 0 for v in each]
                means = [statistics.mean(v) for v in each]
                axis.errorbar(xs, means, spread, fmt="o", ms=4, capsize=2, label=agents)
            axis.axhline(0, color="0.7", lw=0.8, zorder=0)
            axis.set_xticks(range(len(places)), places, rotation=45, ha="right")
            axis.set(title=f"{label}, trained with {name}", ylabel="points of mIoU")
        row[0].legend(title="tested with", fontsize="x-small", title_fontsize="small")
    figure.savefig(path, dpi=80)


def draw_costs(path: Path, reports: list[Record]) -> None:
    """Time and memory over the pixels of square images, for each agents."""
    figure, axes = reporting.subplots(len(reports), 2)
    for row, report in zip(axes, reports, strict=True):
        square = [r for r in report["records"] if r["size"][0] == r["size"][1]]
        for agents in SETTINGS:
            own = [r for r in square if agents in r["agents"]]
            xs = [r["size"][0] for r in own]
            row[0].plot(xs, [1e3 * r["median"] for r in own], ".-", label=agents)
            row[1].plot(xs, [r["peak_memory"] / reporting.MIB for r in own], ".-", label=agents)
        for axis, label in zip(row, ("ms", "peak MiB"), strict=True):
            axis.set(xlabel="side in pixels", ylabel=label, xscale="log", yscale="log")
            axis.set_title(report["gpu"] or report["cpu"])
        row[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    run_tool(main)
