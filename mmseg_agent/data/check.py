"""Checking an ADE20K-like set: pairs of images and label maps, in threads."""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm.contrib.concurrent import thread_map

from mmengine_agent.data.check import CheckedSet, Place, size_figures
from mmengine_agent.data.faults import Fault
from mmengine_agent.data.images import ImageError, open_whole
from mmengine_agent.data.sheet import read_small
from mmengine_agent.draw import Array, class_colours, paint_labels
from mmseg_agent.data.label_maps import Pair, check_pair, find_pairs, main_suffix

_COLOURS = class_colours(254)  # of labels 1 to 254; 0 and 255 are ignored


@dataclass
class AdeSet(CheckedSet):
    """An ADE20K-like set that was checked."""

    pairs: list[Pair] = field(default_factory=list)

    def pictures(self) -> tuple[int, set[int]]:
        bad = self.faulty("image", "label")
        return len(self.pairs), {i for i, pair in enumerate(self.pairs) if pair.name in bad}

    def draw(self, index: int) -> tuple[Array, str]:
        pair = self.pairs[index]
        picture = read_small(pair.image)
        try:
            labels = np.asarray(open_whole(pair.label))
        except ImageError:
            return picture, pair.name
        if labels.ndim == 2:
            size = picture.shape[1::-1]
            labels = cv2.resize(labels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
            paint_labels(picture, labels.astype(int) - 1, _COLOURS)
        return picture, pair.name

    def write_clean(self, folder: Path) -> str:
        """Link the good pairs below a folder; what was kept, in one line.

        Links of images get the ending that most images have: OpenCV reads what is in a file,
        whatever its ending.
        """
        name, bad = self.place.name, self.faulty("")
        good = [pair for pair in self.pairs if pair.name not in bad]
        self.require_some(good)
        ending = main_suffix([pair.image for pair in self.pairs])
        for pair in good:
            for link, target in (
                (folder / "images" / name / f"{pair.name}{ending}", pair.image),
                (folder / "annotations" / name / f"{pair.name}.png", pair.label),
            ):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target.resolve())
        return f"{name}: {len(good)} of {len(self.pairs)} pairs"


def check_ade(place: Place, names: list[str], workers: int, fast: bool = False) -> AdeSet:
    """Check a folder of images and one of label maps; ``names`` are of labels 1, 2, ..."""
    found = AdeSet(place)
    found.pairs, faults = find_pairs(place.images, place.ann)
    found.add(faults)
    check = partial(check_pair, classes=len(names), fast=fast)
    contents = thread_map(check, found.pairs, max_workers=workers, desc=place.name, unit="pair")
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for _, counts, faults in contents:
        found.add(faults)
        pixels.update(counts)
        images.update(counts.keys())
    if found.pairs:
        unused = [number for number, _ in enumerate(names, 1) if not pixels[number]]
        found.add(Fault("category-unused", names[n - 1], "no pixel of it", n) for n in unused)
    found.figures = {"pairs": len(found.pairs), **size_figures(size for size, *_ in contents)}
    pixels[0] += pixels.pop(255, 0)
    found.figures["classes"] = [
        {"name": name, "pixels": pixels[number], "images": images[number]}
        for number, name in enumerate(["(ignore)", *names])
    ]
    return found
