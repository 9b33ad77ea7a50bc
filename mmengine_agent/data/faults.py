"""What can be wrong with a data set: every kind in one table, and what was found of each."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of fault: how bad it is, what it is, and what to do about it."""

    level: int  # WARNING, FAULT or STOPS
    what: str
    hint: str

    @property
    def fails(self) -> bool:
        """Whether it fails the check."""
        return self.level > WARNING

    @property
    def stops_training(self) -> bool:
        """Whether mmdet, mmseg or pycocotools fail at it, or train on something else than meant.

        Of an annotation file these are looked for before a training; of images and label maps when
        they are loaded.
        """
        return self.level == STOPS


WARNING = 0  # worth knowing; stops nothing
FAULT = 1  # should be mended; training does not end at it
STOPS = 2  # a fault that stops a training
KINDS: dict[str, Kind] = {
    # ---- the annotation file and the folders
    "json-syntax": Kind(STOPS, "the file is no JSON, or is cut short", "write or copy it again"),
    "json-layout": Kind(
        STOPS,
        "images, annotations or categories are missing or no list",
        "a COCO file is one object with these three lists",
    ),
    "set-empty": Kind(STOPS, "there is nothing to learn from", "see the folders or the lists"),
    # ---- images
    "image-keys": Kind(
        STOPS,
        "an image entry lacks a key, or one has the wrong type",
        "id, width, height: whole numbers; file_name: text",
    ),
    "image-id-twice": Kind(STOPS, "two images have one id", "give every image its own id"),
    "image-file-twice": Kind(STOPS, "a file is listed twice", "one entry a file"),
    "image-path": Kind(
        STOPS, "a file name leaves the image folder", "names are relative to the image folder"
    ),
    "image-missing": Kind(STOPS, "an image is not there", "copy it, or look at the image folder"),
    "image-unreadable": Kind(STOPS, "an image cannot be decoded", "export it again"),
    "image-truncated": Kind(STOPS, "an image is cut short", "copy or download it again"),
    "image-format": Kind(
        FAULT, "OpenCV, which reads images in training, cannot decode it", "save as JPEG or PNG"
    ),
    "image-size": Kind(
        STOPS,
        "width and height disagree with the picture as training sees it",
        "boxes and masks may be of another size: export them again",
    ),
    "image-suffix": Kind(
        FAULT,
        "file endings differ within a folder, and training reads one of them only",
        "give all images one ending, lower case and all",
    ),
    "image-rotated": Kind(
        WARNING,
        "EXIF asks for the picture to be turned, and training does so",
        "turn the pixels and drop the tag, if annotations were drawn on unturned pictures",
    ),
    "image-bare": Kind(
        WARNING, "an image has no annotations", "mmdet's training may leave such images out"
    ),
    # ---- categories
    "category-keys": Kind(
        STOPS,
        "a category lacks id or name, or one has the wrong type",
        "id: a whole number; name: text",
    ),
    "category-id-twice": Kind(STOPS, "two categories have one id", "give each its own id"),
    "category-name-twice": Kind(STOPS, "two categories have one name", "merge or rename them"),
    "category-unused": Kind(WARNING, "nothing is of this category", "is that meant?"),
    # ---- annotations
    "annotation-keys": Kind(
        STOPS,
        "an annotation lacks a key, or one has the wrong type",
        "id, image_id, category_id: whole numbers; bbox: [x, y, width, height]",
    ),
    "annotation-id-twice": Kind(
        STOPS, "two annotations have one id", "mmdet asserts that ids are unique: number again"
    ),
    "annotation-image": Kind(FAULT, "an annotation is of an image that is not listed", "drop it"),
    "annotation-category": Kind(
        FAULT, "an annotation is of a category that is not listed", "list the category, or drop it"
    ),
    "annotation-twice": Kind(
        WARNING, "two annotations have the same image, category and box", "drop one"
    ),
    "iscrowd": Kind(
        FAULT, "iscrowd is missing or neither 0 nor 1", "pycocotools evaluates with it: set it to 0"
    ),
    "box-length": Kind(STOPS, "a box is not a list of four", "[x, y, width, height]"),
    "box-number": Kind(STOPS, "a box has something else than finite numbers", "export it again"),
    "box-empty": Kind(
        FAULT, "a box has no width or no height", "[x, y, width, height], not two corners"
    ),
    "box-outside": Kind(
        FAULT,
        "a box reaches out of the image by more than a pixel",
        "[x, y, width, height] in pixels, not two corners; clip it",
    ),
    "box-tiny": Kind(WARNING, "a box is below one pixel: mmdet's training drops it", "drop it"),
    "box-off-mask": Kind(
        WARNING,
        "box and mask overlap by less than half",
        "[x, y, width, height], not two corners; do both belong to one object?",
    ),
    "area-missing": Kind(STOPS, "area is missing: mmdet cannot load the file", "add the area"),
    "area-type": Kind(STOPS, "area is no finite number", "the area of the mask in pixels"),
    "area-value": Kind(
        FAULT, "area is 0 or less: mmdet drops the object", "the area of the mask in pixels"
    ),
    "mask-type": Kind(STOPS, "segmentation is neither polygons nor RLE", "a list or an object"),
    "mask-missing": Kind(
        WARNING, "an object has no mask", "enough for boxes; Mask R-CNN needs one for each object"
    ),
    "mask-empty": Kind(FAULT, "a mask covers nothing", "drop the object, or draw it again"),
    "polygon-length": Kind(
        FAULT, "a polygon is no list of x, y pairs, at least three", "[x1, y1, x2, y2, x3, y3, ...]"
    ),
    "polygon-number": Kind(
        STOPS, "a polygon has something else than finite numbers", "export it again"
    ),
    "polygon-outside": Kind(
        FAULT,
        "a polygon reaches out of the image by more than a pixel",
        "clip it; in pixels?",
    ),
    "rle-size": Kind(STOPS, "the size of an RLE is not the image's", "[height, width]"),
    "rle-counts": Kind(
        STOPS, "the runs of an RLE do not sum up to the image", "encode it again with pycocotools"
    ),
    # ---- label maps
    "label-missing": Kind(STOPS, "an image has no label map", "same name, ending in .png"),
    "label-orphan": Kind(FAULT, "a label map has no image", "same name as the image"),
    "label-suffix": Kind(
        FAULT, "a label map is no PNG: training looks for .png", "save as PNG, JPEG changes labels"
    ),
    "label-unreadable": Kind(STOPS, "a label map cannot be decoded", "export it again"),
    "label-truncated": Kind(STOPS, "a label map is cut short", "copy or download it again"),
    "label-channels": Kind(
        STOPS,
        "a label map has several channels: colours instead of class numbers",
        "one channel, or a palette, with 0 = ignore, 1 = first class",
    ),
    "label-depth": Kind(
        STOPS,
        "a label map has values above 255, of which training keeps the low 8 bits",
        "8 bits: 0 = ignore, 1 = first class",
    ),
    "label-size": Kind(
        STOPS,
        "label map and image differ in size, as training sees them",
        "export the label map at the size of the image; training turns pictures as EXIF asks",
    ),
    "label-range": Kind(
        STOPS,
        "a label map has numbers that are no class",
        "0 (or 255) = ignore, 1..classes; see --classes",
    ),
    "label-empty": Kind(WARNING, "a label map is all ignore", "nothing is learnt from it"),
}


@dataclass(frozen=True)
class Fault:
    """Something wrong at one place.

    Attributes:
        kind: a key of ``KINDS``.
        place: where it is, for people.
        message: what is there.
        index: which image, annotation or category of the lists, or which pair, by its name.
    """

    kind: str
    place: str
    message: str
    index: int | str = -1


@dataclass
class Findings:
    """Faults by kind: all are counted, the first ``keep`` of each kind are kept."""

    keep: int = 1000
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[Fault]] = field(default_factory=dict)
    indices: dict[str, set[int | str]] = field(default_factory=dict)

    def add(self, faults: Iterable[Fault]) -> None:
        """Take in what a check found."""
        for fault in faults:
            self.counts[fault.kind] += 1
            self.indices.setdefault(fault.kind, set()).add(fault.index)
            first = self.first.setdefault(fault.kind, [])
            if len(first) < self.keep:
                first.append(fault)

    def at(self, *kinds: str) -> set[int | str]:
        """Which entries have a fault of one of these kinds."""
        return set().union(*(self.indices.get(kind, set()) for kind in kinds))

    def kinds(self, level: int) -> list[str]:
        """The kinds found that are warnings (``WARNING``), or all others, in the table's order."""
        fails = level > WARNING
        return [kind for kind in KINDS if self.counts[kind] and KINDS[kind].fails == fails]

    @property
    def clean(self) -> bool:
        return not self.kinds(FAULT)
