"""What the grounds and shapes of the demo's scenes look like. H and W are a scene's, in pixels."""

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]  # (H, W)

STUFF = {"grass": (92, 128, 66), "sand": (188, 168, 122), "water": (74, 118, 158)}  # mean RGB
THINGS = {"ellipse": 0, "rectangle": 72, "triangle": 144, "star": 216, "cross": 288}  # mean hue


def cloud(rng: Generator, shape: Shape, channels: int, cells: int = 5) -> Array:
    """Slowly varying noise (H, W, channels) float32, about -2..2."""
    grid = rng.standard_normal((cells, cells, channels), np.float32)
    return cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC).reshape(*shape, channels)


def relief(rng: Generator, kind: str, shape: Shape) -> Array:
    """The pattern of a ground, blades, grain or waves: (H, W) float32, mean 0, deviation 1."""
    noise: Array = rng.standard_normal(shape, np.float32)
    if kind == "grass":
        blade = np.zeros((9, 9), np.float32)
        cv2.line(blade, (4 + int(rng.integers(-2, 3)), 0), (4, 8), 1.0)
        noise = cv2.filter2D(noise, -1, blade)
    elif kind == "sand":
        noise = noise + 3 * (rng.random(shape) < 0.03)
    else:
        y, x = np.indices(shape, np.float32)
        angle, wave = rng.uniform(-0.5, 0.5), rng.uniform(6, 12)
        phase = (x * np.sin(angle) + y * np.cos(angle)) / wave + cloud(rng, shape, 1)[..., 0] / 2
        noise = np.sin(2 * np.pi * phase) + 0.4 * noise
    return (noise - noise.mean()) / noise.std()


def paint_ground(rng: Generator, ground: Array) -> Array:
    """Colour the ground (H, W) uint8: (H, W, 3) float32 RGB in about 0..255."""
    shape = ground.shape
    canvas = np.zeros((*shape, 3), np.float32)
    for number, (kind, mean) in enumerate(STUFF.items()):
        base = np.array(mean) + rng.normal(0, 12, 3)
        # pale grounds resemble each other, so colour alone does not tell them apart
        base += rng.uniform(0, 0.4) * (base.mean() - base)
        depth = rng.uniform(0.06, 0.16) * relief(rng, kind, shape)[..., None]
        shade = 1 + depth + 0.04 * cloud(rng, shape, 1)
        canvas += (ground == number)[..., None] * base * shade
    return canvas + 4 * cloud(rng, shape, 3)


def colour(rng: Generator, hue: float) -> Array:
    """A fairly strong RGB colour (3,) float32 in 0..255 of about a hue in degrees."""
    hsv = np.array([[(hue % 360, rng.uniform(0.55, 0.95), rng.uniform(0.55, 1))]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255


def texture(rng: Generator, kind: str, shape: Shape, size: int) -> Array:
    """The surface of a shape: (H, W, 3) float32 RGB; stripes, checks, dots or plain."""
    # a few shapes have any hue, and neighbouring hues mix, so the form has to be learned too
    hue = rng.uniform(0, 360) if rng.random() < 0.1 else rng.normal(THINGS[kind], 10)
    first, second = colour(rng, hue), colour(rng, hue + rng.normal(0, 20))
    y, x = np.indices(shape, np.float32)
    angle, step = rng.uniform(0, np.pi), rng.uniform(0.04, 0.09) * size / (2 * np.pi)
    u = np.sin((x * np.cos(angle) + y * np.sin(angle)) / step)
    v = np.sin((y * np.cos(angle) - x * np.sin(angle)) / step)
    field = (u, u * v, u + v - 0.7, np.full(shape, -1.0))[rng.integers(4)]
    blend = np.clip(3 * field + 0.5, 0, 1)[..., None]
    surface = first + blend * (0.75 * second - first) + rng.normal(0, 6, (*shape, 1))
    return (surface * rng.uniform(0.8, 1.15)).astype(np.float32)


def paint_part(rng: Generator, canvas: Array, kind: str, alpha: Array, light: Array) -> None:
    """Draw a shape that covers alpha (H, W) onto canvas (H, W, 3), with shadow and outline."""
    size = max(alpha.shape)
    reach = size // 20 + 2
    x, y, w, h = cv2.boundingRect((alpha > 0).astype(np.uint8))
    near = np.s_[max(0, y - reach) : y + h + reach, max(0, x - reach) : x + w + reach]
    alpha, view = alpha[near], canvas[near]
    move = np.array([(1, 0, light[0]), (0, 1, light[1])])
    shadow = cv2.warpAffine(alpha, move, alpha.shape[::-1])
    view *= 1 - 0.45 * cv2.GaussianBlur(shadow, (0, 0), size / 100)[..., None]
    width = 2 * max(1, size // 160) + 1
    rim = alpha - cv2.erode(alpha, np.ones((width, width), np.uint8))
    surface = texture(rng, kind, alpha.shape, size) * (1 - 0.35 * rim[..., None])
    view += alpha[..., None] * (surface - view)


def paint(rng: Generator, ground: Array, parts: Iterable[tuple[str, Array]]) -> Array:
    """Draw a scene: (H, W, 3) uint8 RGB.

    Args:
        ground: (H, W) uint8, the number of each pixel's ground.
        parts: from back to front, a shape and how much it covers of each pixel, (H, W) in 0..1.
    """
    canvas = paint_ground(rng, ground)
    h, w = ground.shape
    angle = rng.uniform(0, 2 * np.pi)
    light = 0.02 * max(h, w) * np.array([np.cos(angle), np.sin(angle)])
    for kind, alpha in parts:
        paint_part(rng, canvas, kind, alpha, light)
    y, x = np.indices((h, w), np.float32)
    slope = (x / w - 0.5) * np.cos(angle) + (y / h - 0.5) * np.sin(angle)
    canvas *= 1 - rng.uniform(0, 0.5) * slope[..., None]
    return np.clip(canvas + rng.normal(0, 2, canvas.shape), 0, 255).astype(np.uint8)
