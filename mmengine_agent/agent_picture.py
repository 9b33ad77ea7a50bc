"""A picture of what agents do: whom they serve, and from where they gather."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

COLUMNS = 4  # panels a row
_PANEL = 3.2  # width of a panel, in inches
_TITLE = 0.35  # height of a panel's title, in inches


class View(NamedTuple):
    """What is drawn. A place of the maps is ``stride`` x ``stride`` pixels of the image."""

    image: np.ndarray  # (H, W, 3) RGB in 0..255, as the backbone gets it
    gather: np.ndarray  # (a_h, a_w, H', W'), from where each agent gathers
    serve: np.ndarray  # (a_h, a_w), how much each agent serves the pixel
    reach: np.ndarray  # (H', W'), what reaches the pixel through all agents
    pixel: tuple[float, float]  # (x, y) in the image
    stride: float


def draw(view: View, agents: int) -> Figure:
    """A row of panels about the pixel, then the agents that serve it most, strongest first.

    Args:
        view: what to draw.
        agents: number of agents drawn, at most as many as there are.
    """
    order = np.argsort(-view.serve, axis=None)[:agents]
    rows = 1 + -(-len(order) // COLUMNS)
    height, width = view.image.shape[:2]
    size = (COLUMNS * _PANEL, rows * (_PANEL * height / width + _TITLE))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False)
    _draw_pixel(axes[0], view)
    for ax, agent in zip(axes[1:].flat, order, strict=False):
        row, column = np.unravel_index(agent, view.serve.shape)
        _overlay(ax, view, view.gather[row, column])
        ax.add_patch(_cell(view, int(row), int(column)))
        ax.set_title(f"agent ({row}, {column}) serves {view.serve[row, column]:.1%}", fontsize=9)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure


def _draw_pixel(axes: np.ndarray, view: View) -> None:
    panels = {
        "image, and the agents' cells": None,
        "which agents serve the pixel": view.serve,
        "what reaches it through them": view.reach,
        "where all agents gather": view.gather.mean((0, 1)),
    }
    for ax, (title, weights) in zip(axes, panels.items(), strict=True):
        ax.set_title(title, fontsize=9)
        _overlay(ax, view, weights)
        if title != "where all agents gather":
            ax.plot(*view.pixel, "+", color="cyan", markersize=12, markeredgewidth=2)
    for row, column in np.ndindex(view.serve.shape):
        axes[0].add_patch(_cell(view, row, column, linewidth=0.3, edgecolor="white"))


def _overlay(ax: Axes, view: View, weights: np.ndarray | None) -> None:
    """The image; under weights (any grid over the map) in grey, the largest weight brightest."""
    height, width = view.image.shape[:2]
    if weights is None:
        ax.imshow(view.image.astype(np.uint8), extent=(0, width, height, 0))
    else:
        grey = view.image.mean(-1) / 255
        ax.imshow(grey, cmap="gray", vmin=0, vmax=1.3, extent=(0, width, height, 0))
        strength = weights / weights.max()
        bottom, right = (side * view.stride for side in view.reach.shape)
        ax.imshow(
            strength,
            cmap="inferno",
            vmin=0,
            alpha=0.2 + 0.65 * np.sqrt(strength),
            extent=(0, right, bottom, 0),
        )
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)


def _cell(
    view: View, row: int, column: int, linewidth: float = 1.5, edgecolor: str = "cyan"
) -> Rectangle:
    """The part of the image an agent is pooled from: a cell of adaptive average pooling."""
    (top, bottom), (left, right) = (
        (i * side // count * view.stride, -(-(i + 1) * side // count) * view.stride)
        for i, side, count in zip((row, column), view.reach.shape, view.serve.shape, strict=True)
    )
    return Rectangle(
        (left, top), right - left, bottom - top, fill=False, lw=linewidth, ec=edgecolor
    )
