"""What was found, for people (text) and for programs (JSON)."""

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


def text(found: CheckedSet) -> str:
    """The figures of a set, then its faults by kind, then its warnings."""
    lines = [f"{found.place.name}: {found.place.ann} with {found.place.images}"]
    lines += [f"  {line}" for line in _figures(found.figures, found.counts_boxes)]
    for fails, word in ((FAULT, "fault"), (WARNING, "warning")):
        kinds = found.findings.kinds(fails)
        total = sum(found.findings.counts[kind] for kind in kinds)
        lines.append(f"  {total} {word}{'' if total == 1 else 's'}{':' if total else ''}")
        for kind in kinds:
            lines += [f"    {line}" for line in _kind(found.findings, kind)]
    return "\n".join(lines)


def as_json(found: CheckedSet) -> dict[str, Any]:
    """The same as plain data; of each kind the first 1000 places."""
    findings = found.findings
    return {
        "name": found.place.name,
        "annotations": str(found.place.ann),
        "images": str(found.place.images),
        "clean": findings.clean,
        "figures": _figures_json(found.figures, found.counts_boxes),
        "faults": [_kind_json(findings, kind) for kind in findings.kinds(FAULT)],
        "warnings": [_kind_json(findings, kind) for kind in findings.kinds(WARNING)],
    }


def write_json(path: Path, sets: Sequence[CheckedSet], form: str, seconds: float) -> None:
    """Write the report as one file."""
    content = {
        "format": form,
        "clean": all(found.findings.clean for found in sets),
        "seconds": round(seconds, 1),
        "sets": [as_json(found) for found in sets],
    }
    write_file(path, json.dumps(content, indent=2) + "\n")


def _kind(findings: Findings, kind: str) -> Iterator[str]:
    yield f"{kind} ({findings.counts[kind]}): {KINDS[kind].what}"
    for fault in findings.first[kind][:_PLACES]:
        line = f"{fault.place}: {fault.message}"
        yield "  " + textwrap.shorten(line, 200, placeholder=" ...")
    more = findings.counts[kind] - _PLACES
    if more > 0:
        yield f"  and {more} more"
    yield f"  -> {KINDS[kind].hint}"


def _kind_json(findings: Findings, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "what": KINDS[kind].what,
        "hint": KINDS[kind].hint,
        "total": findings.counts[kind],
        "places": [{"place": f.place, "message": f.message} for f in findings.first[kind]],
    }


def _figures(figures: Figures, boxes: bool) -> Iterator[str]:
    if figures.entries:
        yield ", ".join(f"{count} {name}" for name, count in figures.entries.items())
    if figures.sizes:
        (width, height), count = figures.sizes.most_common(1)[0]
        (narrow, low), (wide, high) = _ranges(figures)
        yield (
            f"image sizes: width {narrow}..{wide}, height {low}..{high}, "
            f"most often {width} x {height} ({count})"
        )
    if figures.boxes:
        small, middle, large = _box_sizes(figures)
        least, median, most = np.percentile(figures.boxes, (0, 50, 100))
        yield (
            f"boxes: {small} small (below 32 x 32), {middle} medium, {large} large (96 x 96 and "
            f"more); square root of area {least:.0f}..{most:.0f}, median {median:.0f}"
        )
    yield from _classes(figures, boxes)


def _classes(figures: Figures, boxes: bool) -> Iterator[str]:
    total = sum(figures.amounts.values()) or 1
    names = [name for name, _ in figures.amounts.most_common()]
    width = max(map(len, names[:_CLASSES]), default=0)
    for name in names[:_CLASSES]:
        amount = figures.amounts[name]
        much = f"{amount:8} instances" if boxes else f"{amount / total:8.3%} of pixels"
        yield f"  {name:{width}} {much} in {figures.images[name]} images"
    if len(names) > _CLASSES:
        yield f"  and {len(names) - _CLASSES} more classes; --report has all"


def _figures_json(figures: Figures, boxes: bool) -> dict[str, Any]:
    found: dict[str, Any] = dict(figures.entries)
    if figures.sizes:
        found["image_sizes"] = dict(zip(("smallest", "largest"), _ranges(figures), strict=True))
    if figures.boxes:
        found["boxes"] = dict(zip(("small", "medium", "large"), _box_sizes(figures), strict=True))
        least_to_most = np.percentile(figures.boxes, (0, 50, 100)).tolist()
        found["box_sides"] = [round(side, 1) for side in least_to_most]
    word = "instances" if boxes else "pixels"
    found["classes"] = [
        {"name": name, word: amount, "images": figures.images[name]}
        for name, amount in figures.amounts.items()
    ]
    return found


def _ranges(figures: Figures) -> tuple[tuple[int, int], tuple[int, int]]:
    """Least width and height, greatest width and height."""
    sizes = np.array(list(figures.sizes))
    low, high = sizes.min(0).tolist(), sizes.max(0).tolist()
    return (low[0], low[1]), (high[0], high[1])


def _box_sizes(figures: Figures) -> tuple[int, int, int]:
    """Boxes that COCO calls small, medium and large; it goes by area, 32² and 96²."""
    small, middle, large = np.histogram(figures.boxes, (0, 32, 96, np.inf))[0].tolist()
    return small, middle, large
