"""Which agents serve a pixel, and from where they gather, for the page.

The maps of an image are computed once, for all blocks, and kept by whoever asked: a click after
that only draws.
"""

from contextlib import ExitStack
from typing import NamedTuple

import cv2
import mmcv
import numpy as np
import torch
from matplotlib import colormaps
from mmengine.dataset import pseudo_collate

from agent_attention.maps import AttentionMaps, recorded_maps
from agent_toolkit.page.models import PageModel
from agent_toolkit.page.pictures import sample
from mmengine_agent.agent_picture import View, agents_by_stage, cell, view_of
from mmengine_agent.draw import fit

SIDE = 340  # pixels of a panel
STRONGEST = 8  # agents that are drawn one by one
_MOST = 1_500_000  # pixels of an image whose maps are kept; a larger one is shrunk to them
_CELL = (255, 255, 0)  # cyan, BGR


class Agents(NamedTuple):
    """The attention of all blocks with agents for one image."""

    image: np.ndarray  # (H, W, 3) RGB, as the backbone gets it
    maps: dict[int, list[AttentionMaps]]  # by stage from 1, a block each; half precision
    strides: dict[int, int]  # by stage: pixels of the image in a place of the map, a side

    def heads(self, stage: int, block: int) -> int:
        """How many heads a block has."""
        return self.maps[stage][block].aggregate.shape[1]


class Panel(NamedTuple):
    """A picture with a title."""

    title: str
    picture: np.ndarray  # (H, W, 3) uint8 BGR
    cross: tuple[float, float]  # the pixel, as shares of width and height


def record_agents(model: PageModel, image: np.ndarray) -> Agents:
    """The attention of a model for an image (H, W, 3) uint8 BGR, prepared as in testing.

    Raises:
        UserError: if the backbone has no agents.
    """
    backbone = model.model.backbone
    stages = agents_by_stage(backbone)
    shrink = (_MOST / (image.shape[0] * image.shape[1])) ** 0.5
    if shrink < 1:
        image = fit(image, round(image.shape[1] * shrink), round(image.shape[0] * shrink))
    packed = model.predictor.prepare({"img": image, "img_id": 0})
    with torch.no_grad(), ExitStack() as stack:
        found = {
            stage: [stack.enter_context(recorded_maps(attn)) for attn in agents]
            for stage, agents in stages.items()
        }
        backbone(model.model.data_preprocessor(pseudo_collate([packed]))["inputs"])
    maps = {stage: [_halve(calls[0]) for calls in blocks] for stage, blocks in found.items()}
    seen = mmcv.imresize(image, packed["data_samples"].img_shape[1::-1])
    strides = {stage: backbone.strides[stage - 1] for stage in stages}
    return Agents(np.ascontiguousarray(seen[..., ::-1]), maps, strides)


def _halve(maps: AttentionMaps) -> AttentionMaps:
    aggregate, broadcast = (each.half().cpu() for each in (maps.aggregate, maps.broadcast))
    return maps._replace(aggregate=aggregate, broadcast=broadcast)


def view_pixel(
    agents: Agents, stage: int, block: int, head: int | None, x: float, y: float
) -> View:
    """What one block does for a pixel.

    Args:
        agents: of the image.
        stage: from 1.
        block: of the stage, from 0.
        head: from 0; None for the mean of all.
        x: the pixel, as a share of the width, from 0 to below 1.
        y: and of the height.
    """
    maps = agents.maps[stage][block]
    chosen = slice(None) if head is None else slice(head, head + 1)
    aggregate, broadcast = (each[:, chosen].float() for each in (maps.aggregate, maps.broadcast))
    height, width = agents.image.shape[:2]
    pixel = (x * width, y * height)
    chosen_maps = maps._replace(aggregate=aggregate, broadcast=broadcast)
    return view_of(chosen_maps, agents.image, pixel, agents.strides[stage])


def draw_panels(view: View) -> list[Panel]:
    """The panels of ``tools/visualize_attention.py``: four of all agents, then the strongest."""
    height, width = view.image.shape[:2]
    cross = view.pixel[0] / width, view.pixel[1] / height
    plain = fit(np.ascontiguousarray(view.image[..., ::-1]).astype(np.uint8), SIDE, SIDE)
    cells = plain.copy()
    for row, column in np.ndindex(*view.serve.shape):
        _outline(cells, view, row, column)
    panels = [
        Panel("The agents' cells", cells, cross),
        Panel("Which agents serve the pixel", _lay_over(plain, view, view.serve), cross),
        Panel("What reaches it through them", _lay_over(plain, view, view.reach), cross),
        Panel("Where all agents gather", _lay_over(plain, view, view.gather.mean((0, 1))), cross),
    ]
    strongest = np.argsort(-view.serve, axis=None)[:STRONGEST]
    for row, column in zip(*np.unravel_index(strongest, view.serve.shape), strict=True):
        picture = _lay_over(plain, view, view.gather[row, column])
        _outline(picture, view, int(row), int(column))
        title = f"Agent ({row}, {column}) serves {view.serve[row, column]:.1%}"
        panels.append(Panel(title, picture, cross))
    return panels


def _lay_over(picture: np.ndarray, view: View, weights: np.ndarray) -> np.ndarray:
    """A picture in grey under weights (any grid over the map), the largest brightest."""
    strength = weights / max(weights.max(), 1e-12)
    colours = colormaps["inferno"](strength)[..., 2::-1] * 255
    alpha = 0.2 + 0.65 * np.sqrt(strength)
    scale = picture.shape[1] / view.image.shape[1]
    extent = view.reach.shape[0] * view.stride * scale, view.reach.shape[1] * view.stride * scale
    layer = np.concatenate([colours, alpha[..., None]], -1).astype(np.float32)
    layer = sample(layer, picture.shape[:2], extent)
    grey = picture.mean(-1, keepdims=True) / 1.3
    return (grey * (1 - layer[..., 3:]) + layer[..., :3] * layer[..., 3:]).astype(np.uint8)


def _outline(picture: np.ndarray, view: View, row: int, column: int) -> None:
    """Draw the cell that an agent is pooled from."""
    scale = picture.shape[1] / view.image.shape[1]
    (left, top), (right, bottom) = cell(view, row, column).get_bbox().get_points() * scale
    start, end = (round(left), round(top)), (round(right) - 1, round(bottom) - 1)
    cv2.rectangle(picture, start, end, _CELL, 2)
