"""Checking an ADE20K-like set: pairs of images and label maps, in threads."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from mmengine_agent.data.check import CheckedSet, Place
from mmengine_agent.data.faults import FAULT
from mmengine_agent.data.images import map_in_threads
from mmengine_agent.data.new_folder import require_some
from mmseg_agent.data import label_maps
from mmseg_agent.data.sheet import ade_tiles


@dataclass
class AdeSet(CheckedSet):
    """An ADE20K-like set that was checked."""

    counts_boxes: ClassVar[bool] = False
    pairs: list[label_maps.Pair] = field(default_factory=list)

    def tiles(self) -> list[np.ndarray]:
        return ade_tiles(self.pairs, self.findings)

    def write_clean(self, folder: Path) -> str:
        """Link the good pairs below a folder; what was kept, in one line.

        Links of images get the ending that most images have: OpenCV reads what is in a file,
        whatever its ending.
        """
        name, bad = self.place.name, self.findings.at(*self.findings.kinds(FAULT))
        good = [pair for pair in self.pairs if pair.name not in bad]
        require_some(good, name)
        ending = label_maps.main_suffix([pair.image for pair in self.pairs])
        for pair in good:
            _link(folder / "images" / name / f"{pair.name}{ending}", pair.image)
            _link(folder / "annotations" / name / f"{pair.name}.png", pair.label)
        return f"{name}: {len(good)} of {len(self.pairs)} pairs"


def check_ade(place: Place, names: list[str], workers: int, fast: bool = False) -> AdeSet:
    """Check a folder of images and one of label maps; ``names`` are of labels 1, 2, ..."""
    found = AdeSet(place)
    found.pairs, faults = label_maps.find_pairs(place.images, place.ann)
    found.findings.add(faults)
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    read_pair = partial(label_maps.read_pair, classes=len(names), fast=fast)
    contents = map_in_threads(read_pair, found.pairs, workers)
    for each in tqdm(contents, desc=place.name, total=len(found.pairs), unit="pair"):
        found.findings.add(each.faults)
        found.figures.sizes.update([each.size] if each.size else [])
        pixels.update(each.pixels)
        images.update(each.pixels.keys())
    if found.pairs:
        found.findings.add(label_maps.unused_classes(pixels, names))
    label_names = {0: "(ignore)", **dict(enumerate(names, 1))}
    for number, name in label_names.items():
        found.figures.amounts[name] += pixels[number] + (0 if number else pixels[255])
        found.figures.images[name] += images[number]
    found.figures.entries = {"pairs": len(found.pairs)}
    return found


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(target.resolve())
