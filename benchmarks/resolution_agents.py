"""The agents and the pictures of ``resolution.py``."""

import functools
import math
from typing import Any, NamedTuple

import torch
from study_config import AGENTS

from agent_attention import AgentPVT
from agent_attention.arguments import Pair
from agent_attention.backbones.pyramid import BASE_GRIDS
from agent_attention.mixers import AgentAttention

# what ``agent_shapes`` is, by name
SETTINGS: dict[str, Any] = {
    "base": BASE_GRIDS,
    "half": tuple((rows // 2, columns // 2) for rows, columns in AGENTS),
    "published": AGENTS,
    "rule": "rule",
    "aspect": {"type": "rule", "aspect": True},
    "uncapped": {"type": "rule", "cap": math.inf},
    "bounded": "bounded",
}
TRAINED = ("published", "base", "rule", "bounded")  # what models are trained with
_PRETRAINED = 224  # side, in pixels, of the images that a backbone's tables are for


class Place(NamedTuple):
    """Test pictures: ``rows`` x ``columns`` of the data set's in one, resized."""

    rows: int
    columns: int
    factor: float  # pixels of a side over those at the training resolution

    @property
    def split(self) -> str:
        """The folder of these pictures."""
        return "validation" if self.rows * self.columns == 1 else f"{self.rows}x{self.columns}"


PLACES = {
    **{f"{factor:g}x": Place(1, 1, factor) for factor in (0.5, 1, 2, 3)},
    **{"2x2": Place(2, 2, 1), "3x3": Place(3, 3, 1)},
    **{"1x3 at 0.5x": Place(1, 3, 0.5), "1x3": Place(1, 3, 1)},
}


def mixers_of(model: torch.nn.Module) -> list[AgentAttention]:
    """All agent attentions of a model."""
    return [m for m in model.modules() if isinstance(m, AgentAttention)]


@functools.cache
def mixers_with(name: str) -> list[AgentAttention]:
    """Agent-PVT's agent attentions under a name of ``SETTINGS``, one a stage, without numbers."""
    with torch.device("meta"):
        model = AgentPVT(agent_shapes=SETTINGS[name])
    by_stage = {m.table_shape: m for m in mixers_of(model)}
    return list(by_stage.values())


def set_agents(model: torch.nn.Module, name: str) -> None:
    """Have a trained Agent-PVT take other agents; no weight depends on them."""
    shapes = {m.table_shape: m.agent_shape for m in mixers_with(name)}
    for m in mixers_of(model):
        m.agent_shape = shapes[m.table_shape]


def grids_at(name: str, size: Pair) -> tuple[Pair, ...]:
    """The agent grid of each stage for an image of ``size`` (H, W) in pixels."""
    strides = [_PRETRAINED // m.table_shape[0] for m in mixers_with(name)]
    each = zip(mixers_with(name), strides, strict=True)
    return tuple(m.grid((size[0] // stride, size[1] // stride)) for m, stride in each)


def names_by_grids(size: Pair) -> dict[tuple[Pair, ...], list[str]]:
    """The names of ``SETTINGS`` by the grids that they come to for an image of ``size``."""
    found: dict[tuple[Pair, ...], list[str]] = {}
    for name in SETTINGS:
        found.setdefault(grids_at(name, size), []).append(name)
    return found
