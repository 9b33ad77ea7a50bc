"""What a file's tensors tell of the backbone that they are of."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

Weights = Mapping[str, Tensor]


class Recognised(NamedTuple):
    """A family of backbones, and the arguments for one that takes the tensors."""

    family: type[Any]  # a Backbone
    sizes: tuple[int, ...]  # that tell its architectures apart
    arch: str | None  # None: none that is known has these sizes
    img_size: int | None  # pixels at pre-training; None without agent attention
    options: dict[str, Any]  # of the constructor, beside ``arch``


def count_of(weights: Weights, pattern: str) -> int:
    """How many different things the group of a pattern matches at the beginning of keys."""
    return len({match.group(1) for key in weights if (match := re.match(pattern, key))})


def known_as(known: Mapping[str, tuple[int, ...]], sizes: tuple[int, ...]) -> str | None:
    """The name of the known sizes that are equal to these."""
    return next((name for name, value in known.items() if value == sizes), None)


def agent_img_size(weights: Weights, first_block: str, stride: int) -> int | None:
    """Pixels at pre-training, told by a bias table of the first block's agent attention."""
    table = weights.get(f"{first_block}.attn.ah_bias")
    return None if table is None or table.dim() != 5 else stride * table.shape[3]
