"""Checking an ADE20K-like set: pairs of images and label maps, in threads."""

from collections import Counter
from collections.abc import Sequence
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
from mmseg_agent.data.label_maps import Labels, Pair, check_pair, find_pairs, main_suffix
from mmseg_agent.data.palette import read_palette

_COLOURS = class_colours(254)  # of labels 1 to 254; 0 and 255 are ignored


@dataclass
class AdeSet(CheckedSet):
    """An ADE20K-like set that was checked."""

    pairs: list[Pair] = field(default_factory=list)
    labels: Labels = field(default_factory=partial(Labels, None))

    def pictures(self) -> tuple[int, set[int]]:
        bad = self.faulty("image", "label")
        return len(self.pairs), {i for i, pair in enumerate(self.pairs) if pair.name in bad}

    def draw(self, index: int) -> tuple[Array, str]:
        pair = self.pairs[index]
        picture = read_small(pair.image)
        try:
            labels = self.labels.read(open_whole(pair.label))
        except ImageError:
            return picture, pair.name
        size = picture.shape[1::-1]
        labels = cv2.resize(labels.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        paint_labels(picture, labels.astype(int) - self.labels.first, _COLOURS)
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


def check_set(
    place: Place,
    workers: int,
    fast: bool = False,
    *,
    names: Sequence[str] = (),
    first: int = 1,
    palette: str | None = None,
) -> AdeSet:
    """Check a folder of images and one of label maps.

    Args:
        place: where both are.
        workers: threads.
        fast: do not decode images.
        names: of the classes, in the order of their numbers.
        first: the number of the first class.
        palette: the file with names, and colours or numbers, in place of both.

    Raises:
        UserError: if the palette file is none.
    """
    labels = Labels(len(names), first)
    if palette:
        names, _, table = read_palette(palette)
        labels = Labels(len(names), 0, table)
    found = AdeSet(place, labels=labels)
    found.pairs, faults = find_pairs(place.images, place.ann)
    found.add(faults)
    check = partial(check_pair, labels=labels, fast=fast)
    contents = thread_map(check, found.pairs, max_workers=workers, desc=place.name, unit="pair")
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for _, counts, faults in contents:
        found.add(faults)
        pixels.update(counts)
        images.update(counts.keys())
    if found.pairs:
        unused = [n for n in range(len(names)) if not pixels[n + labels.first]]
        found.add(Fault("category-unused", names[n], "no pixel of it", n) for n in unused)
    found.figures = {"pairs": len(found.pairs), **size_figures(size for size, *_ in contents)}
    for ignored in range(labels.first):
        pixels[255] += pixels[ignored]
        images[255] = max(images[255], images[ignored])
    found.figures["classes"] = [
        {"name": name, "pixels": pixels[number], "images": images[number]}
        for number, name in [(255, "(ignore)"), *enumerate(names, labels.first)]
    ]
    return found
