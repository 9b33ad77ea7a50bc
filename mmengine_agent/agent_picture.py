"""A picture of what agents do: whom they serve, and from where they gather."""

from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

import mmcv
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.dataset import pseudo_collate
from torch import nn

from agent_attention import AgentAttention
from agent_attention.backbones import Backbone
from agent_attention.maps import AttentionMaps, recorded_maps
from mmengine_agent.errors import UserError
from mmengine_agent.files import atomic_write
from mmengine_agent.predict.model import Predictor, choose_device, load_model
from mmengine_agent.run.setup import config_of

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


def write_picture(flags: Namespace) -> None:
    """Write the picture that the flags of ``tools/visualize_attention.py`` ask for.

    Raises:
        UserError: if there is no such image, pixel, stage, block or head, or it cannot be written.
    """
    cfg = config_of(flags)
    checkpoint = None if flags.checkpoint == "none" else flags.checkpoint
    model = load_model(cfg, checkpoint, choose_device(flags.device))[0]
    attn = _choose("--block", flags.block, agent_modules(model.backbone, flags.stage))
    predictor = Predictor(model, cfg)
    file = predictor.load(Path(flags.image))
    packed = predictor.prepare({"img": file, "img_id": 0})
    with torch.no_grad(), recorded_maps(attn) as found:
        model.backbone(model.data_preprocessor(pseudo_collate([packed]))["inputs"])
    maps = found[0]
    if flags.head is not None:
        head = [_choose("--head", flags.head, range(maps.aggregate.shape[1]))]
        maps = maps._replace(aggregate=maps.aggregate[:, head], broadcast=maps.broadcast[:, head])
    image = mmcv.imresize(file, packed["data_samples"].img_shape[::-1])[..., ::-1]
    height, width = file.shape[:2]
    x, y = flags.pixel or (width // 2, height // 2)
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f"--pixel {x} {y}: the image has {width} x {height} pixels")
    pixel = (x + 0.5) * image.shape[1] / width, (y + 0.5) * image.shape[0] / height
    stride = model.backbone.strides[flags.stage - 1]
    figure = draw(view_of(maps, image, pixel, stride), flags.drawn_agents)
    out = Path(flags.out)
    try:
        with atomic_write(out) as part:
            figure.savefig(part, format=out.suffix[1:] or None)
    except (OSError, ValueError) as error:  # matplotlib knows the formats by the file's ending
        raise UserError(f"--out {out}: {error}") from error
    print(f"written: {out}")


def agents_by_stage(backbone: nn.Module) -> dict[int, list[AgentAttention]]:
    """The agent attentions of each stage that has some, counted from 1.

    Raises:
        UserError: if the backbone has none.
    """
    stages = range(1, backbone.num_stages + 1) if isinstance(backbone, Backbone) else ()
    found = {number: agents for number in stages if (agents := _agents_of(backbone, number))}
    if not found:
        raise UserError(f"the backbone {type(backbone).__name__} has no agents to draw")
    return found


def agent_modules(backbone: nn.Module, stage: int) -> list[AgentAttention]:
    """The agent attentions of a stage, counted from 1.

    Raises:
        UserError: if the backbone or the stage has none.
    """
    found = agents_by_stage(backbone)
    if stage not in found:
        having = ", ".join(map(str, found))
        raise UserError(f"--stage {stage}: no agents there in this model; stages with: {having}")
    return found[stage]


def _agents_of(backbone: Any, stage: int) -> list[AgentAttention]:
    parts = [part for part in backbone.stage_modules(stage) if isinstance(part, nn.Module)]
    return [each for part in parts for each in part.modules() if isinstance(each, AgentAttention)]


def _choose(flag: str, index: int, among: Any) -> Any:
    """One of several, by a flag's number.

    Raises:
        UserError: if there are fewer.
    """
    if not -len(among) <= index < len(among):
        raise UserError(f"{flag} {index}: there are {len(among)}, 0 to {len(among) - 1}")
    return among[index]


def view_of(
    maps: AttentionMaps, image: np.ndarray, pixel: tuple[float, float], stride: int
) -> View:
    """What is drawn for a pixel (x, y) of the image as the model sees it: means over the heads."""
    height, width = maps.size
    row, column = min(int(pixel[1] / stride), height - 1), min(int(pixel[0] / stride), width - 1)
    front = maps.class_tokens  # a class token has no place to be drawn at
    token = front + row * width + column

    weights = (maps.aggregate, maps.broadcast[:, :, token], maps.reach(token))  # each (1, h, ...)
    gather, serve, reach = (x[0].mean(0).cpu().numpy() for x in weights)
    gather, reach = gather[:, front:], reach[front:]
    gather = gather.reshape(*maps.agent_shape, height, width)
    serve, reach = serve.reshape(maps.agent_shape), reach.reshape(height, width)
    return View(image, gather, serve, reach, pixel, stride)


def draw(view: View, agents: int) -> Figure:
    """A row of panels about the pixel, then the agents that serve it most, strongest first.

    Args:
        view: what to draw.
        agents: number of agents drawn, at most as many as there are.
    """
    strongest = np.argsort(-view.serve, axis=None)[:agents]
    cells = [cell(view, row, column) for row, column in np.ndindex(*view.serve.shape)]
    panels: list[tuple[str, np.ndarray | None, list[Rectangle]]] = [
        ("image, and the agents' cells", None, cells),
        ("which agents serve the pixel", view.serve, []),
        ("what reaches it through them", view.reach, []),
        ("where all agents gather", view.gather.mean((0, 1)), []),
    ]
    for row, column in zip(*np.unravel_index(strongest, view.serve.shape), strict=True):
        title = f"agent ({row}, {column}) serves {view.serve[row, column]:.1%}"
        panels.append((title, view.gather[row, column], [cell(view, row, column)]))
    rows = -(-len(panels) // COLUMNS)
    height, width = view.image.shape[:2]
    size = (COLUMNS * _PANEL, rows * (_PANEL * height / width + _TITLE))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    for number, (title, weights, marked) in enumerate(panels, 1):
        ax = figure.add_subplot(rows, COLUMNS, number)
        ax.set_title(title, fontsize=9)
        _overlay(ax, view, weights)
        for each in marked:
            ax.add_patch(each)
        ax.plot(*view.pixel, "+", color="lime", markersize=12, markeredgewidth=2)
        ax.set_axis_off()
    return figure


def _overlay(ax: Axes, view: View, weights: np.ndarray | None) -> None:
    """The image; under weights (any grid over the map) in grey, the largest weight brightest."""
    height, width = view.image.shape[:2]
    ax.set(xlim=(0, width), ylim=(height, 0))  # what is padded is not shown
    ax.set_autoscale_on(False)
    if weights is None:
        ax.imshow(view.image.astype(np.uint8), extent=(0, width, height, 0))
        return
    grey = view.image.mean(-1) / 255
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1.3, extent=(0, width, height, 0))
    strength = weights / weights.max()
    alpha = 0.2 + 0.65 * np.sqrt(strength)
    bottom, right = (side * view.stride for side in view.reach.shape)
    ax.imshow(strength, cmap="inferno", vmin=0, alpha=alpha, extent=(0, right, bottom, 0))


def cell(view: View, row: int, column: int) -> Rectangle:
    """The part of the image that an agent is pooled from: a cell of adaptive average pooling."""
    (top, bottom), (left, right) = (
        (i * side // count * view.stride, -(-(i + 1) * side // count) * view.stride)
        for i, side, count in zip((row, column), view.reach.shape, view.serve.shape, strict=True)
    )
    return Rectangle((left, top), right - left, bottom - top, fill=False, lw=0.8, ec="cyan")
