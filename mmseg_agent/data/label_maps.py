"""A folder of images and one of label PNGs, as ADE20K has them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmengine_agent.data.faults import STOPS, Fault
from mmengine_agent.data.formats.records import image_files
from mmengine_agent.data.images import IMAGES, ImageError, Size, image_faults, open_whole
from mmseg_agent.data.palette import Table, map_labels


class Pair(NamedTuple):
    """An image and its label map; ``name`` is the path in both folders, without an ending."""

    name: str
    image: Path
    label: Path


@dataclass(frozen=True)
class Labels:
    """What the values of label maps mean; 255 is ignored.

    Attributes:
        classes: how many there are, None if any number is one.
        first: the number of the first class; 0 is ignored if it is 1.
        table: labels by colour or number, in place of the values themselves; ``first`` is 0 then.
    """

    classes: int | None
    first: int = 1
    table: Table | None = None

    def read(self, image: Image.Image) -> np.ndarray:
        """The values (H, W) of a label map, as mmseg reads them; of a table, its labels.

        Raises:
            ImageError: 'channels' if it has colours and there is no table of them, 'range' if the
                table lacks one.
        """
        if self.table:
            return map_labels(image, self.table)
        values = np.asarray(image)
        if values.ndim != 2:
            raise ImageError("channels", f"mode {image.mode}, {values.shape[2]} channels")
        return values


def find_pairs(images: Path, labels: Path) -> tuple[list[Pair], list[Fault]]:
    """The pairs of two folders, by name, and what is wrong with the folders' files.

    Folders within are searched too, as mmseg does. Training reads images of one ending; the most
    frequent is taken for it.
    """
    files, labelled = (
        [path.relative_to(folder) for path in image_files(folder)] for folder in (images, labels)
    )
    pictures, maps = ({p.with_suffix(""): p for p in reversed(each)} for each in (files, labelled))
    pngs = {path.with_suffix("") for path in labelled if path.suffix == ".png"}
    ending = main_suffix(files)
    faults = [
        Fault("image-suffix", str(path), f"the others end in {ending}", str(path))
        for path in files
        if path.suffix != ending
    ]
    for kind, names, message in (
        ("label-suffix", maps.keys() - pngs, "it does not end in .png"),
        ("label-missing", pictures.keys() - maps.keys(), f"not in {labels}"),
        ("label-orphan", pngs - pictures.keys(), f"not in {images}"),
    ):
        for name in sorted(names):
            faults.append(Fault(kind, str(maps.get(name, name)), message, str(name)))
    if not pictures:
        faults.append(Fault("set-empty", str(images), f"no files ending in {', '.join(IMAGES)}"))
    both = sorted(pngs & pictures.keys())
    return [Pair(str(n), images / pictures[n], labels / f"{n}.png") for n in both], faults


def check_pair(
    pair: Pair, labels: Labels, fast: bool = False
) -> tuple[Size | None, dict[int, int], list[Fault]]:
    """The size of a pair's image, the pixels of its labels, and what is wrong with both.

    Labels are decoded even if ``fast``.
    """
    size, faults = image_faults(pair.image, fast)
    pixels, more = read_label(pair.label, size, labels)
    return size, pixels, [Fault(k, pair.name, m, pair.name) for k, m in (*faults, *more)]


def read_label(
    path: Path, size: Size | None, labels: Labels
) -> tuple[dict[int, int], list[tuple[str, str]]]:
    """The pixels of each value of a label map, and (kind, message) of what is wrong with it.

    It is read as mmseg does, by Pillow: the numbers of a palette, not its colours.

    Args:
        path: its file.
        size: of its image, None if unknown.
        labels: what its values mean.
    """
    try:
        image = open_whole(path)
    except ImageError as error:
        return {}, [(f"label-{error.args[0]}", error.args[1])]
    faults = []
    if size not in (None, image.size):
        sizes = (*image.size, *size)
        faults.append(("label-size", "{} x {}, the image {} x {}".format(*sizes)))
    try:
        values = labels.read(image)
    except ImageError as error:
        return {}, [*faults, (f"label-{error.args[0]}", error.args[1])]
    counts = np.bincount(np.minimum(values.astype(np.uint32), 2**16).ravel())
    pixels = {int(value): int(counts[value]) for value in counts.nonzero()[0]}
    return pixels, [*faults, *_value_faults(pixels, labels)]


def require_label(
    names: Sequence[str] | None, path: Path, size: Size | None, results: dict[str, Any]
) -> None:
    """Raise ImageError if mmseg could not load a label map, or would train on something else.

    Args:
        names: of the classes, None if they are not known.
        path: of the label map.
        size: of its image.
        results: what the loader is given.
    """
    # numbers that a loader changes are not those of the classes
    count = len(names) if names and not results.get("label_map") else None
    table, first = results.get("label_table"), int(bool(results.get("reduce_zero_label")))
    for kind, message in read_label(path, size, Labels(count, first, table))[1]:
        if kind in STOPS:
            raise ImageError(kind, f"{path}: {message.removeprefix(f'{path}: ')}")


def main_suffix(pictures: list[Path]) -> str:
    """The most frequent ending of image files; '.jpg' if there are none."""
    endings = Counter(path.suffix for path in pictures)
    return max(endings, key=lambda ending: (endings[ending], ending)) if endings else ".jpg"


def _value_faults(pixels: dict[int, int], labels: Labels) -> Iterator[tuple[str, str]]:
    first, classes = labels.first, labels.classes
    ignored = {255, *range(first)}
    if max(pixels, default=0) > 255:
        yield "label-depth", f"values up to {max(pixels)}"
    elif classes is not None:
        unknown = pixels.keys() - ignored - {*range(first, first + classes)}
        if unknown:
            numbers = ", ".join(map(str, sorted(unknown)[:8]))
            last = first + classes - 1
            yield "label-range", f"has {numbers}, but classes are {first}..{last}"
    if not pixels.keys() - ignored:
        yield "label-empty", f"every pixel is of {sorted(pixels)}, which are ignored"
