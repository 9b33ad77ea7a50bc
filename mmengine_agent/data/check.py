"""What checking a set of either kind gives: where it is, what was found, and figures of it."""

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmengine_agent.data.faults import Findings


@dataclass(frozen=True)
class Place:
    """Where a set is: its name, its annotations (a JSON file, or a folder of PNGs), its images."""

    name: str
    ann: Path
    images: Path


@dataclass
class Figures:
    """Counts of a set; lists have an item for each image or box."""

    entries: dict[str, int] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # (width, height): images
    amounts: Counter[str] = field(default_factory=Counter)  # by class: instances, or pixels
    images: Counter[str] = field(default_factory=Counter)  # by class: images that have it
    boxes: list[float] = field(default_factory=list)  # square roots of areas, in pixels


@dataclass
class CheckedSet(ABC):
    """A set that was checked; each kind of data set has its own class."""

    counts_boxes: ClassVar[bool]  # amounts of classes are instances; else they are pixels

    place: Place
    findings: Findings = field(default_factory=Findings)
    figures: Figures = field(default_factory=Figures)

    @abstractmethod
    def tiles(self) -> list[np.ndarray]:
        """Pictures of a contact sheet (``data.sheet``), those with faults first."""

    @abstractmethod
    def write_clean(self, folder: Path) -> str:
        """Write a copy without faults into a folder; what was kept, in one line.

        Raises:
            UserError: if nothing is left.
        """
