"""What was found, for programs (JSON) and for people (text)."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmengine_agent.data.check import CheckedSet, Figures
from mmengine_agent.data.faults import FAULT, KINDS, WARNING, Findings
from mmengine_agent.files import write_file

_CLASSES, _PLACES = 30, 3  # lines of text, for classes and for the places of a kind


def write_json(path: Path, sets: Sequence[CheckedSet], form: str, seconds: float) -> None:
    """Write the report as one file."""
    content = {
        "format": form,
        "clean": all(found.findings.clean for found in sets),
        "seconds": round(seconds, 1),
        "sets": [as_json(found) for found in sets],
    }
    write_file(path, json.dumps(content, indent=2) + "\n")


def as_json(found: CheckedSet) -> dict[str, Any]:
    """Figures, faults and warnings of a set as plain data; of each kind the first 1000 places."""
    return {
        "name": found.place.name,
        "annotations": str(found.place.ann),
        "images": str(found.place.images),
        "clean": found.findings.clean,
        "figures": _figures(found.figures, found.counts_boxes),
        "faults": _kinds(found.findings, FAULT),
        "warnings": _kinds(found.findings, WARNING),
    }


def text(found: CheckedSet) -> str:
    """The figures of a set, then its faults by kind, then its warnings."""
    report = as_json(found)
    lines = [f"{report['name']}: {report['annotations']} with {report['images']}"]
    lines += [f"  {line}" for line in _figure_lines(found, report["figures"])]
    for word in ("fault", "warning"):
        kinds = report[f"{word}s"]
        total = sum(kind["total"] for kind in kinds)
        lines.append(f"  {total} {word}{'' if total == 1 else 's'}{':' if total else ''}")
        lines += [f"    {line}" for kind in kinds for line in _kind_lines(kind)]
    return "\n".join(lines)


def _kinds(findings: Findings, level: int) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "what": KINDS[kind].what,
            "hint": KINDS[kind].hint,
            "total": findings.counts[kind],
            "places": [{"place": f.place, "message": f.message} for f in findings.first[kind]],
        }
        for kind in findings.kinds(level)
    ]


def _figures(figures: Figures, boxes: bool) -> dict[str, Any]:
    found: dict[str, Any] = dict(figures.entries)
    if figures.sizes:
        sizes = np.array(list(figures.sizes))
        found["image_sizes"] = {
            "smallest": sizes.min(0).tolist(),  # least width and least height
            "largest": sizes.max(0).tolist(),
        }
    if figures.boxes:  # as COCO has them, by area: 32² and 96²
        counts = np.histogram(figures.boxes, (0, 32, 96, np.inf))[0].tolist()
        found["boxes"] = dict(zip(("small", "medium", "large"), counts, strict=True))
        least_to_most = np.percentile(figures.boxes, (0, 50, 100)).tolist()
        found["box_sides"] = [round(side, 1) for side in least_to_most]
    word = "instances" if boxes else "pixels"
    found["classes"] = [
        {"name": name, word: amount, "images": figures.images[name]}
        for name, amount in figures.amounts.items()
    ]
    return found


def _kind_lines(kind: dict[str, Any]) -> Iterator[str]:
    yield f"{kind['kind']} ({kind['total']}): {kind['what']}"
    for fault in kind["places"][:_PLACES]:
        line = f"{fault['place']}: {fault['message']}"
        yield "  " + textwrap.shorten(line, 200, placeholder=" ...")
    more = kind["total"] - _PLACES
    if more > 0:
        yield f"  and {more} more"
    yield f"  -> {kind['hint']}"


def _figure_lines(found: CheckedSet, report: dict[str, Any]) -> Iterator[str]:
    figures = found.figures
    if figures.entries:
        yield ", ".join(f"{count} {name}" for name, count in figures.entries.items())
    if figures.sizes:
        (width, height), count = figures.sizes.most_common(1)[0]
        (narrow, low), (wide, high) = report["image_sizes"].values()
        yield (
            f"image sizes: width {narrow}..{wide}, height {low}..{high}, "
            f"most often {width} x {height} ({count})"
        )
    if figures.boxes:
        small, middle, large = report["boxes"].values()
        least, median, most = report["box_sides"]
        yield (
            f"boxes: {small} small (below 32 x 32), {middle} medium, {large} large (96 x 96 and "
            f"more); square root of area {least:.0f}..{most:.0f}, median {median:.0f}"
        )
    total = sum(figures.amounts.values()) or 1
    classes = figures.amounts.most_common()
    width = max((len(name) for name, _ in classes[:_CLASSES]), default=0)
    for name, amount in classes[:_CLASSES]:
        much = f"{amount:8} instances" if found.counts_boxes else f"{amount / total:8.3%} of pixels"
        yield f"  {name:{width}} {much} in {figures.images[name]} images"
    if len(classes) > _CLASSES:
        yield f"  and {len(classes) - _CLASSES} more classes; --report has all"
