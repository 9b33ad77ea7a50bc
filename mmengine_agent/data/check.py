"""What checking a set of either kind gives: where it is, what was found, and figures of it."""

import json
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmengine_agent.data.faults import KINDS, WARNINGS, Fault
from mmengine_agent.errors import UserError
from mmengine_agent.files import write_file

_CLASSES, _PLACES = 30, 3  # lines of text, for classes and for the places of a kind
_KEPT = 1000  # places of a kind in the report


class Place(NamedTuple):
    """Where a set is: its name, its annotations (a JSON file, or a folder of PNGs), its images."""

    name: str
    ann: Path
    images: Path


@dataclass
class CheckedSet(ABC):
    """A set that was checked; each kind of data set has its own class.

    Attributes:
        place: where it is.
        faults: what was found, by kind.
        figures: counts, as plain data; ``classes`` has a dict for each.
    """

    place: Place
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, faults: Iterable[Fault]) -> None:
        """Take in what a check found."""
        for fault in faults:
            self.faults.setdefault(fault.kind, []).append(fault)

    def faulty(self, *parts: str) -> set[Any]:
        """Indices of what has a fault of a kind that begins with one of ``parts``; no warnings."""
        kinds = (kind for kind in self.faults.keys() - WARNINGS.keys() if kind.startswith(parts))
        return {fault.index for kind in kinds for fault in self.faults[kind]}

    @property
    def clean(self) -> bool:
        return not self.faults.keys() - WARNINGS.keys()

    @abstractmethod
    def pictures(self) -> tuple[int, set[Any]]:
        """Number of images, and the indices of those with faults."""

    @abstractmethod
    def draw(self, index: int) -> tuple[np.ndarray, str]:
        """An image (H, W, 3) BGR with its annotations, small, and its name."""

    @abstractmethod
    def write_clean(self, folder: Path) -> str:
        """Write a copy without faults into a folder; what was kept, in one line.

        Raises:
            UserError: if nothing is left.
        """

    def require_some(self, good: Sequence[Any]) -> None:
        """Raise UserError if nothing is good."""
        if not good:
            raise UserError(
                f"--fix: nothing of {self.place.name} is without faults; nothing was written"
            )


def size_figures(sizes: Iterable[tuple[int, int] | None]) -> dict[str, Any]:
    """The least and the largest width and height of images; empty without any."""
    found = np.array([size for size in sizes if size])
    if not len(found):
        return {}
    return {"image_sizes": {"smallest": found.min(0).tolist(), "largest": found.max(0).tolist()}}


def write_report(path: Path, sets: Sequence[CheckedSet], form: str, seconds: float) -> None:
    """Write what was found as JSON; of each kind the first 1000 places."""
    content = {
        "format": form,
        "clean": all(found.clean for found in sets),
        "seconds": round(seconds, 1),
        "sets": [
            {
                "name": found.place.name,
                "annotations": str(found.place.ann),
                "images": str(found.place.images),
                "clean": found.clean,
                "figures": found.figures,
                "faults": [*_kinds(found, False)],
                "warnings": [*_kinds(found, True)],
            }
            for found in sets
        ],
    }
    write_file(path, json.dumps(content, indent=2) + "\n")


def _kinds(found: CheckedSet, warnings: bool) -> Iterator[dict[str, Any]]:
    for kind, what in KINDS.items():
        faults = found.faults.get(kind, [])
        if faults and (kind in WARNINGS) == warnings:
            places = [{"place": f.place, "message": f.message} for f in faults[:_KEPT]]
            yield {"kind": kind, "what": what, "total": len(faults), "places": places}


def text(found: CheckedSet) -> str:
    """The figures of a set, its most frequent classes, its faults by kind and its warnings."""
    lines = [f"{found.place.name}: {found.place.ann} with {found.place.images}"]
    figures = dict(found.figures)
    classes = figures.pop("classes", [])
    lines += [f"  {name}: {json.dumps(value)}" for name, value in figures.items()]
    for each in sorted(classes, key=lambda each: -[*each.values()][1])[:_CLASSES]:
        lines.append("  - " + ", ".join(f"{key}: {value}" for key, value in each.items()))
    for word, warnings in (("faults", False), ("warnings", True)):
        kinds = [*_kinds(found, warnings)]
        lines.append(f"  {sum(kind['total'] for kind in kinds)} {word}")
        for kind in kinds:
            lines.append(f"    {kind['kind']} ({kind['total']}): {kind['what']}")
            for where in kind["places"][:_PLACES]:
                line = f"{where['place']}: {where['message']}"
                lines.append("      " + textwrap.shorten(line, 200, placeholder=" ..."))
    return "\n".join(lines)
