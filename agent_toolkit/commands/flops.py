"""Count the parameters and multiply-adds of a config's model, without any data set.

    python tools/get_flops.py configs/agent_pvt_maskrcnn.py
    python tools/get_flops.py configs/agent_pvt_semantic_fpn.py --shape 512 512 --json flops.json

The model runs on torch's meta device, so it costs no time, and torch's own counter sees every
operator, fused attention included. One multiply-add is one FLOP, as in the published tables, whose
input sizes are the defaults: 800x1280 with 1000 proposals and 100 masks for detectors, 512x2048
without the auxiliary head for segmentors. Agent biases depend on the map's size and the weights
alone: resizing them does not count for an image. Heads that ask for the values of an image while
they run (DINO, Sparse R-CNN) are counted in a run on zeros, on the CPU.
"""

import copy
import functools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmengine_agent.config_walk import walk
from mmengine_agent.errors import UserError, one_line
from mmengine_agent.run.setup import add_config_flags, config_of, make_parser
from mmengine_agent.task import task_of

STRIDE = 32  # the smallest image side


class Count(NamedTuple):
    """Of one part of a model."""

    parameters: int
    multiply_adds: int


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("config", help="config file, for example configs/agent_pvt_maskrcnn.py")
    add("--shape", type=int, nargs=2, metavar=("H", "W"), help="image size in pixels")
    add("--json", metavar="FILE", help="write the counts to this file too")
    add_config_flags(parser)
    args = parser.parse_args()
    cfg = config_of(args)
    shape = tuple(args.shape or task_of(cfg).flops_shape)
    if min(shape) < STRIDE:
        raise UserError(f"--shape: sides must be at least {STRIDE} pixels, got {shape}")
    counts = count(cfg, (shape[0], shape[1]))
    print(f"{args.config} at {shape[0]}x{shape[1]} (height x width)\n{table(counts)}")
    if args.json:
        report = {"config": args.config, "shape": shape}
        parts = {name: part._asdict() for name, part in counts.items()}
        Path(args.json).write_text(json.dumps({**report, "parts": parts}, indent=2) + "\n")


def count(cfg: Config, shape: tuple[int, int]) -> dict[str, Count]:
    """Parameters and multiply-adds by part; the whole model is ``'model'``.

    Args:
        cfg: a detection or segmentation config.
        shape: image size (H, W) in pixels.

    Raises:
        UserError: if the model runs neither on the meta device nor on the CPU.
    """
    try:
        return count_on("meta", cfg, shape)
    except Exception:  # of many kinds: heads of mmdet and mmseg differ in all they need
        print("the heads need the values of an image: counted in a run on zeros", file=sys.stderr)
    try:
        return count_on("cpu", cfg, shape)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"cannot count a {cfg.model.type}: {one_line(error)}") from error


def count_on(device: str, cfg: Config, shape: tuple[int, int]) -> dict[str, Count]:
    """The same, on one device."""
    model = build(cfg, device).requires_grad_(False)  # hooks of the counter ask gradients of all
    if device != "meta":
        task_of(cfg).guard_model(model)
    # as one call of the model, in which the counter knows all modules by their names
    model.forward = functools.partial(task_of(cfg).run_for_flops, model, shape, device)
    # while the counter looks on, attention is its definition: biases are added, not multiplied
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model()
    found = {name: sum(by.values()) // 2 for name, by in counter.get_flop_counts().items()}

    def count_part(name: str, module: nn.Module) -> int:
        inside = (count_part(f"{name}.{child}", each) for child, each in module.named_children())
        # containers are never called: theirs is what is inside
        return found.get(name) or sum(inside)

    parts = {}
    for name, module in model.named_modules():
        counted = count_part(f"{type(model).__name__}.{name}", module)
        if name and name.count(".") <= 1 and counted:
            parts[name] = Count(sum(p.numel() for p in module.parameters()), counted)
    every = Count(sum(p.numel() for p in model.parameters()), found["Global"])
    return {**parts, "model": every}


def build(cfg: Config, device: str) -> Any:
    """The model of a config, in evaluation mode; on the meta device shapes without numbers."""
    init_default_scope(cfg.default_scope)
    settings = copy.deepcopy(cfg.model)  # detectors write into theirs
    for _, node in walk(settings):
        node.update({key: None for key in ("init_cfg", "pretrained") if is_file(node.get(key))})
    try:
        with torch.device(device):
            model = MODELS.build(settings).eval()
    except (RuntimeError, NotImplementedError):  # layers that read a tensor while they are built
        return MODELS.build(settings).eval().to(device)
    if device != "meta":  # there drawing the weights would take most of the time
        model.init_weights()
    return model


def is_file(setting: Any) -> bool:
    """Whether an ``init_cfg`` is weights to be loaded."""
    return isinstance(setting, str) or (setting or {}).get("type") == "Pretrained"


def table(counts: dict[str, Count]) -> str:
    """Counts as text: a line a part, in millions and billions."""
    lines = [f"{'part':<28}{'parameters':>14}{'multiply-adds':>18}"]
    for name, part in counts.items():
        millions, billions = part.parameters / 1e6, part.multiply_adds / 1e9
        lines.append(f"{name:<28}{millions:>12.2f} M{billions:>16.2f} G")
    return "\n".join(lines)
