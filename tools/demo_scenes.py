"""Draw the demo's scenes: a background of grass, sand and water, and shapes that hide each other.

A scene depends on its key (seed, split, number) only. H and W are its height and width in pixels.
``make_demo_data.py`` writes scenes as COCO and ADE20K files.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from demo_paint import STUFF, THINGS, Array, Shape, paint
from numpy.random import Generator
from pycocotools import mask as rle

CLASSES = (*STUFF, *THINGS)
STRETCHED = {"ellipse", "rectangle", "triangle"}  # the shapes whose aspect ratio varies

EMPTY_EVERY, CROWD_EVERY = 25, 30  # scenes 1, 26, ... have no shape; 0, 30, ... have a crowd
TRIES = 20
MIN_SHARE, MIN_PIXELS, MIN_IOU = 0.35, 40, 0.9  # what must stay visible, and fit its polygons
FINE = 4  # masks and polygons are drawn this much finer than pixels, for smooth edges


@dataclass(frozen=True)
class Layout:
    """How large scenes and shapes are; the default is the demo's."""

    extent: tuple[float, float] = (0.16, 0.5)  # a shape's longest side / the scene's longer side
    shorter: tuple[float, float] = (0.75, 1)  # a scene's shorter side / its longer one
    things: int = 5  # shapes of a scene, at most


DEMO = Layout()


@dataclass(frozen=True)
class Item:
    """One annotated object: a shape, or a crowd of small ones."""

    kind: str
    parts: list[Array]  # (H, W) float32 in 0..1: how much of each pixel a drawn shape covers
    mask: Array  # (H, W) bool: the object's pixels, were nothing in front of it
    crowd: bool = False


# ---- where things are ----


def outline(kind: str) -> Array:
    """Corners (N, 2) float64 of a shape around the origin, its longest extent about 1."""
    if kind == "rectangle":
        return np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
    if kind == "cross":
        a, b = 0.17, 0.5
        top = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
        return np.array(top + [(-x, -y) for x, y in top])
    count = {"ellipse": 48, "triangle": 3, "star": 10}[kind]
    angle = np.arange(count) * 2 * np.pi / count
    radius = np.full(count, 0.5)
    if kind == "star":
        radius[1::2] = 0.22
    if kind == "triangle":
        radius[:] = 3**-0.5
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def cover(rng: Generator, kind: str, extent: float, centre: Array, shape: Shape) -> Array:
    """Draw a shape at a random turn: (H, W) float32 in 0..1, the covered part of each pixel."""
    aspect = 2.0 ** rng.uniform(-1, 1) if kind in STRETCHED else 1.0
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    stretch = np.array([min(1, aspect), min(1, 1 / aspect)])
    corners = np.rint(((outline(kind) * extent * stretch) @ turn + centre) * FINE).astype(np.int32)
    limits = np.array(shape[::-1])
    low = np.clip(corners.min(0) // FINE, 0, limits - 1)  # of the pixels that it may touch
    high = np.clip(corners.max(0) // FINE + 1, low + 1, limits)
    fine = np.zeros((high - low)[::-1] * FINE, np.uint8)
    cv2.fillPoly(fine, [(corners - low * FINE).astype(np.int32)], 255)
    covered = np.zeros(shape, np.float32)
    small = cv2.resize(fine, (high - low).tolist(), interpolation=cv2.INTER_AREA)
    covered[low[1] : high[1], low[0] : high[0]] = small.astype(np.float32) / 255
    return covered


def make_thing(rng: Generator, kind: str, shape: Shape, layout: Layout) -> Item:
    """One shape of random size, mostly inside the scene."""
    low, high = layout.extent
    # beta(2, 1.6) leans to the larger sizes, so that most shapes are easy to see
    extent = max(shape) * (low + (high - low) * rng.beta(2, 1.6))
    corner = np.array(shape[::-1], float)
    centre = rng.uniform(0.35 * extent, corner - 0.35 * extent)
    alpha = cover(rng, kind, extent, centre, shape)
    return Item(kind, [alpha], alpha > 0.5)


def make_crowd(rng: Generator, shape: Shape) -> Item:
    """A cluster of many small ellipses, taken as one region."""
    size = max(shape)
    middle = rng.uniform(0.25, 0.75, 2) * shape[::-1]
    centres = middle + np.clip(rng.normal(0, 0.07 * size, (30, 2)), -0.2 * size, 0.2 * size)
    extents = np.maximum(3, size * rng.uniform(0.03, 0.06, len(centres)))
    parts = [cover(rng, "ellipse", e, c, shape) for e, c in zip(extents, centres, strict=True)]
    union = (np.max(parts, axis=0) > 0.5).astype(np.uint8)
    # people outline a crowd as a whole, so the gaps between its members belong to it
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (size // 40) + 1,) * 2)
    return Item("ellipse", parts, cv2.morphologyEx(union, cv2.MORPH_CLOSE, kernel) > 0, crowd=True)


def polygons(mask: Array) -> list[list[float]]:
    """Outer borders of a mask (H, W) bool, each as [x, y, x, y, ...] in pixels."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    patch = mask[y : y + h, x : x + w].astype(np.uint8)
    # OpenCV traces the centres of border pixels; on finer pixels that lies close to their edges
    fine = cv2.resize(patch, None, fx=FINE, fy=FINE, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    simple = [cv2.approxPolyDP(contour, 0.4 * FINE, True)[:, 0] for contour in contours]
    edges = [(corners + 0.5) / FINE + (x, y) for corners in simple if len(corners) > 2]
    return [np.round(corners, 2).ravel().tolist() for corners in edges]


def fits(mask: Array) -> bool:
    """Whether a mask (H, W) bool is nearly what its polygons say; holes and specks are not."""
    parts = polygons(mask)
    if not parts:
        return False
    drawn = rle.decode(rle.merge(rle.frPyObjects(parts, *mask.shape))).astype(bool)
    return bool((drawn & mask).sum() >= MIN_IOU * (drawn | mask).sum())


def place(items: list[Item], owner: Array, item: Item) -> bool:
    """Put item in front if all things stay well visible: adds to items and to owner (H, W) int."""
    after = np.where(item.mask, len(items) + 1, owner)
    touched = {int(k) for k in np.unique(owner[item.mask])} - {0}
    for number in sorted(touched | {len(items) + 1}):
        other = item if number > len(items) else items[number - 1]
        visible = after == number
        if visible.sum() < max(MIN_PIXELS, MIN_SHARE * other.mask.sum()):
            return False
        if not other.crowd and not fits(visible):
            return False
    items.append(item)
    owner[:] = after
    return True


def lay_out(
    rng: Generator, shape: Shape, index: int, layout: Layout = DEMO
) -> tuple[list[Item], Array]:
    """A scene's objects, back to front, and (H, W) int32: the visible one's place in them + 1."""
    items: list[Item] = []
    owner = np.zeros(shape, np.int32)
    if index % EMPTY_EVERY == 1:
        return items, owner
    if index % CROWD_EVERY == 0:
        crowd = make_crowd(rng, shape)
        items.append(crowd)
        owner[crowd.mask] = 1
    for _ in range(rng.integers(1, layout.things, endpoint=True)):
        kind = str(rng.choice(list(THINGS)))
        # any() stops at the first try that finds room
        any(place(items, owner, make_thing(rng, kind, shape, layout)) for _ in range(TRIES))
    return items, owner


def divide(rng: Generator, shape: Shape) -> Array:
    """Cut the ground by up to two lines: (H, W) uint8, each pixel's place in STUFF."""
    y, x = np.indices(shape, np.float32)
    kinds = rng.permutation(len(STUFF)).astype(np.uint8)
    ground = np.full(shape, kinds[0])
    for kind in kinds[1 : 1 + rng.choice(3, p=(0.2, 0.45, 0.35))]:
        angle = rng.uniform(0, 2 * np.pi)
        across, along = np.cos(angle), np.sin(angle)
        bend = rng.choice([0, 0.06]) * max(shape)  # straight or wavy
        wave = bend * np.sin((x * -along + y * across) * rng.uniform(2, 8) / max(shape))
        middle = rng.uniform(0.25, 0.75, 2) * shape
        ground[(x - middle[1]) * across + (y - middle[0]) * along > wave] = kind
    return ground


def annotate(item: Item, visible: Array) -> dict[str, Any]:
    """COCO's annotation, but for its ids, of an item whose pixels (H, W) bool are visible."""
    segmentation: Any = polygons(visible)
    if item.crowd:
        segmentation = rle.encode(np.asfortranarray(visible, np.uint8))
        segmentation["counts"] = segmentation["counts"].decode()
    return {
        "category_id": list(THINGS).index(item.kind) + 1,
        "iscrowd": int(item.crowd),
        "area": int(visible.sum()),
        "bbox": list(cv2.boundingRect(visible.astype(np.uint8))),
        "segmentation": segmentation,
    }


def make_scene(
    size: int, key: tuple[int, int, int], layout: Layout = DEMO
) -> tuple[Array, Array, list[dict[str, Any]]]:
    """Scene number key[2] of split key[1] under seed key[0].

    Returns the picture (H, W, 3) uint8 RGB, the ADE labels (H, W) uint8 and COCO's annotations.
    """
    rng = np.random.default_rng(key)
    shorter = round(size * rng.uniform(*layout.shorter))
    shape = (size, shorter) if rng.random() < 0.5 else (shorter, size)
    ground = divide(rng, shape)
    items, owner = lay_out(rng, shape, key[2], layout)
    labels = ground + np.uint8(1)
    for number, item in enumerate(items, 1):
        labels[owner == number] = 0 if item.crowd else CLASSES.index(item.kind) + 1
    found = [annotate(item, owner == number) for number, item in enumerate(items, 1)]
    parts = ((item.kind, alpha) for item in items for alpha in item.parts)
    return paint(rng, ground, parts), labels, found
