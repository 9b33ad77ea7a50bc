"""What can be wrong with a data set: every kind in one table, and what to do about it."""

from dataclasses import dataclass
from typing import Any

# mmdet, mmseg or pycocotools fail at it, or train on something else than meant. Of an annotation
# file these are looked for before a training; of images and label maps when they are loaded
STOPS = {
    # the annotation file and the folders
    "json-syntax": "the file is no JSON, or is cut short: write or copy it again",
    "json-layout": "a COCO file is one object with the lists images, annotations and categories",
    "set-empty": "there is nothing to learn from: see the folders or the lists",
    # images
    "image-keys": "an image needs id, width and height, whole numbers, and file_name, a text",
    "image-id-twice": "two images have one id: give every image its own",
    "image-file-twice": "a file is listed twice: one entry a file",
    "image-path": "a file name leaves the image folder: names are relative to it",
    "image-missing": "an image is not there: copy it, or look at the image folder",
    "image-unreadable": "an image cannot be decoded: export it again",
    "image-truncated": "an image is cut short: copy or download it again",
    "image-size": "width and height are not those that training sees, EXIF's turn applied: boxes "
    "and masks may be of another size, export them again",
    # categories and annotations
    "category-keys": "a category needs id, a whole number, and name, a text",
    "category-id-twice": "two categories have one id: give each its own",
    "category-name-twice": "two categories have one name: merge or rename them",
    "annotation-keys": "an annotation needs id, image_id and category_id, whole numbers, and bbox",
    "annotation-id-twice": "two annotations have one id: number them again",
    "iscrowd": "iscrowd is neither 0 nor 1: set it to 0",
    "box-length": "a box is not a list of four: [x, y, width, height]",
    "box-number": "a box has something else than finite numbers: export it again",
    "area-missing": "area is missing, without which mmdet cannot load the file: add it, in pixels",
    "area-type": "area is no finite number: it is the area of the mask in pixels",
    "mask-type": "segmentation is neither a list of polygons nor an RLE: export it again",
    "polygon-number": "a polygon has something else than finite numbers: export it again",
    "polygon-far": "a corner of a polygon is many images away: are they in pixels?",
    "rle-size": "the size of an RLE is not the image's [height, width]",
    "rle-counts": "the runs of an RLE do not sum up to the image: encode it with pycocotools",
    # label maps
    "label-missing": "an image has no label map: it has the same name, and ends in .png",
    "label-unreadable": "a label map cannot be decoded: export it again",
    "label-truncated": "a label map is cut short: copy or download it again",
    "label-channels": "a label map has colours: see --palette, or one channel, 0 = ignore, 1..",
    "label-depth": "a label map has values above 255, of which training keeps the low 8 bits",
    "label-size": "label map and image differ in size, EXIF's turn applied: export it again",
    "label-range": "a label map has numbers or colours of no class: 0 or 255 = ignore, 1.. = "
    "classes; others: see --classes, --labels-from, --palette",
}
# should be mended; training does not end at it
FAULTS = {
    "image-format": "OpenCV, which reads images in training, cannot: save as JPEG or PNG",
    "image-suffix": "endings differ within a folder, and training reads one of them: rename",
    "annotation-image": "an annotation is of an image that is not listed: drop it",
    "annotation-category": "an annotation is of a category that is not listed: list it",
    "iscrowd-missing": "iscrowd is missing, and pycocotools evaluates with it: set it to 0",
    "box-empty": "a box has no width or no height: [x, y, width, height], not two corners",
    "box-outside": "a box leaves the image by more than a pixel: not two corners? clip it",
    "area-value": "area is 0 or less, and mmdet drops the object: the mask's area in pixels",
    "mask-empty": "a mask covers nothing: drop the object, or draw it again",
    "polygon-length": "a polygon is no list of x, y pairs, at least three: draw it again",
    "polygon-outside": "a polygon leaves the image by more than a pixel: clip it; in pixels?",
    "label-orphan": "a label map has no image: both have the same name",
    "label-suffix": "a label map is no PNG, and training looks for .png: JPEG changes labels",
}
# worth knowing; stops nothing
WARNINGS = {
    "image-rotated": "EXIF turns the picture, in training too: were annotations drawn on it so?",
    "image-bare": "an image has no annotations: mmdet's training may leave such images out",
    "category-unused": "nothing is of this category: is that meant?",
    "annotation-twice": "two annotations have the same image, category and box: drop one",
    "box-tiny": "a box is below one pixel: mmdet's training drops it",
    "box-off-mask": "box and mask overlap by less than half: are they of one object?",
    "mask-missing": "an object has no mask: Mask R-CNN needs one for each, boxes alone do not",
    "label-empty": "a label map is all ignore: nothing is learnt from it",
}
KINDS = {**STOPS, **FAULTS, **WARNINGS}


@dataclass(frozen=True, slots=True)
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
    index: Any = None
