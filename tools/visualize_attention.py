"""Draw what agents do: from where each one gathers, and which of them serve a pixel.

    python tools/visualize_attention.py CONFIG CHECKPOINT photo.jpg --stage 3 --pixel 320 240
    python tools/visualize_attention.py CONFIG none photo.jpg --stage 2 --agents 12 --out stage2.png

The picture shows the pixel and the agents' cells, how much each agent serves the pixel, what
reaches it through them, and for the agents that serve it most from where they gather. Bright is the
largest weight of a panel. CHECKPOINT 'none' draws random weights.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from agent_attention import AgentAttention
from agent_attention.backbones import Backbone
from agent_attention.maps import AttentionMaps, recorded_maps
from mmengine_agent.agent_picture import View, draw
from mmengine_agent.errors import UserError
from mmengine_agent.files import atomic_write
from mmengine_agent.predict.inputs import read as read_frames
from mmengine_agent.predict.model import (
    Predictor,
    build_model,
    choose_device,
    dataset_of,
    load_model,
)
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import KeyValues, read_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file, for example configs/agent_pvt_maskrcnn.py")
    parser.add_argument("checkpoint", help="checkpoint file, or none for random weights")
    parser.add_argument("image", help="image file")
    parser.add_argument("--stage", type=int, default=3, help="from 1 (%(default)s)")
    parser.add_argument(
        "--block",
        type=int,
        default=-1,
        help="of the stage's agent blocks; -1, the last, is default",
    )
    parser.add_argument(
        "--pixel", type=int, nargs=2, metavar=("X", "Y"), help="of the image; default: its centre"
    )
    parser.add_argument("--head", type=int, help="one head, from 0; default: the mean of all")
    parser.add_argument("--agents", type=int, default=8, help="agents drawn (%(default)s)")
    parser.add_argument("--out", default="attention.png", metavar="FILE", help="%(default)s")
    parser.add_argument("--device", default="cpu", help="%(default)s")
    parser.add_argument("--cfg-options", nargs="+", action=KeyValues, metavar="KEY=VALUE")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = read_config(args.config, args.cfg_options)
    device = choose_device(args.device)
    model = load(cfg, args.checkpoint, device)
    attn = choose("--block", args.block, agent_modules(model.backbone, args.stage))
    file, image, inputs = read(model, cfg, args.image)
    with torch.no_grad(), recorded_maps(attn) as found:
        model.backbone(inputs)
    pixel = scaled(args.pixel, file, image.shape[:2])
    view = view_of(found[0], args.head, image, pixel, model.backbone.strides[args.stage - 1])
    save(draw(view, args.agents), Path(args.out))


def scaled(
    pixel: Sequence[int] | None, size: tuple[int, int], to: tuple[int, int]
) -> tuple[float, float]:
    """A pixel (x, y) of an image of ``size`` (H, W), or its centre, in the image resized.

    Raises:
        UserError: if the pixel lies outside.
    """
    x, y = pixel or (size[1] // 2, size[0] // 2)
    if not (0 <= x < size[1] and 0 <= y < size[0]):
        raise UserError(f"--pixel {x} {y}: the image has {size[1]} x {size[0]} pixels")
    return (x + 0.5) * to[1] / size[1], (y + 0.5) * to[0] / size[0]


def load(cfg: Config, checkpoint: str, device: torch.device) -> Any:
    """The config's model in evaluation mode, with a checkpoint's weights or random ones."""
    if checkpoint != "none":
        return load_model(cfg, checkpoint, device)[0]
    return build_model(cfg).to(device).eval()


def agent_modules(backbone: nn.Module, stage: int) -> list[AgentAttention]:
    """The agent attentions of a stage, counted from 1.

    Raises:
        UserError: if the backbone is none of ours, or the stage has none.
    """
    if not isinstance(backbone, Backbone):
        raise UserError(f"the backbone {type(backbone).__name__} has no agents to draw")
    found = {i: agents_in(backbone.stage_modules(i)) for i in range(1, backbone.num_stages + 1)}
    if not found.get(stage):
        having = ", ".join(str(i) for i, modules in found.items() if modules)
        raise UserError(f"--stage {stage}: no agents there in this model; stages with: {having}")
    return found[stage]


def agents_in(parts: list[nn.Module | nn.Parameter]) -> list[AgentAttention]:
    """The agent attentions of some parts of a backbone, in order."""
    modules = [m for part in parts if isinstance(part, nn.Module) for m in part.modules()]
    return [m for m in modules if isinstance(m, AgentAttention)]


def choose(flag: str, index: int, among: Any) -> Any:
    """One of several, by a flag's number.

    Raises:
        UserError: if there are fewer.
    """
    if not -len(among) <= index < len(among):
        raise UserError(f"{flag} {index}: there are {len(among)}, 0 to {len(among) - 1}")
    return among[index]


def read(model: Any, cfg: Config, path: str) -> tuple[tuple[int, int], np.ndarray, Tensor]:
    """An image as the model gets it.

    Returns:
        (H, W) of the file; the image at the size the model sees, RGB; the backbone's input
        (1, 3, H', W'), normalised and padded.
    """
    predictor = Predictor(model, dataset_of(cfg).pipeline)
    faults: list[str] = []
    frames = list(read_frames([Path(path)], predictor.load, faults))
    if faults:
        raise UserError(faults[0])
    packed = predictor.prepare({"img": frames[0].image, "img_id": 0})
    height, width = packed["data_samples"].img_shape
    image = mmcv.imresize(frames[0].image, (width, height))[..., ::-1]
    inputs: Tensor = model.data_preprocessor(pseudo_collate([packed]))["inputs"]
    return frames[0].image.shape[:2], image, inputs


def view_of(
    maps: AttentionMaps,
    head: int | None,
    image: np.ndarray,
    pixel: tuple[float, float],
    stride: int,
) -> View:
    """What is drawn of the maps for a pixel (x, y) of the image as the model sees it."""
    heads = choose("--head", head, range(maps.aggregate.shape[1])) if head is not None else None
    height, width = maps.size
    row, column = min(int(pixel[1] / stride), height - 1), min(int(pixel[0] / stride), width - 1)
    token = row * width + column

    def of_heads(x: Tensor) -> np.ndarray:  # (1, h, ...) -> (...)
        return (x[0].mean(0) if heads is None else x[0, heads]).cpu().numpy()

    return View(
        image=image,
        gather=of_heads(maps.aggregate).reshape(*maps.agent_shape, height, width),
        serve=of_heads(maps.broadcast[:, :, token]).reshape(maps.agent_shape),
        reach=of_heads(maps.reach(token)).reshape(height, width),
        pixel=pixel,
        stride=stride,
    )


def save(figure: Figure, path: Path) -> None:
    """Write a picture."""
    try:
        with atomic_write(path) as part:
            figure.savefig(part, format=path.suffix[1:] or None)
    except (OSError, ValueError) as error:  # matplotlib knows the formats by the file's ending
        raise UserError(f"--out {path}: {error}") from error
    print(f"written: {path}")


if __name__ == "__main__":
    run_tool(main)
