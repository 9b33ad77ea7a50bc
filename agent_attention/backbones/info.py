"""What is known of a backbone: the maps that it gives, and the files that are of it."""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

Weights = Mapping[str, Tensor]
_TABLES = ("ah_bias", "positional_encoding")


class Feature(NamedTuple):
    """A map (B, channels, H/reduction, W/reduction) of an image (B, 3, H, W).

    Sides that are no multiple are rounded, down by Agent-PVT and up by Agent-Swin.
    """

    channels: int
    reduction: int  # stride, in pixels of the image
    module: str  # name of the stage that the map comes out of


class FeatureInfo(tuple[Feature, ...]):
    """A record for each map that a backbone returns, in order; methods as timm names them."""

    __slots__ = ()

    def channels(self) -> list[int]:
        """Channels of each map."""
        return [feature.channels for feature in self]

    def reduction(self) -> list[int]:
        """Stride of each map, in pixels of the image."""
        return [feature.reduction for feature in self]

    def module_name(self) -> list[str]:
        """Name of the stage that each map comes out of, as in ``named_modules``."""
        return [feature.module for feature in self]


class Recognised(NamedTuple):
    """A family of backbones, and the arguments for one that takes a file's tensors."""

    family: type[Any]  # a Backbone
    sizes: tuple[int, ...]  # in which its architectures differ
    arch: str | None  # None: none that is known has these sizes
    img_size: int | None  # pixels at pre-training; None without such tables
    options: dict[str, Any]  # of the constructor, without ``arch``


class ClassifierRules(NamedTuple):
    """In what the authors' ImageNet classifiers differ from a backbone as it is by default."""

    options: dict[str, Any]  # of the constructor
    norm: str = "norm"  # the backbone's name of the norm before the head, ``norm`` in files
    uncropped: tuple[int, ...] = ()  # image sides, in pixels, that are evaluated without a crop


def count_of(weights: Weights, pattern: str) -> int:
    """How many different things the group of a pattern matches at the beginning of keys."""
    return len({match.group(1) for key in weights if (match := re.match(pattern, key))})


def table_img_size(weights: Weights, first_mixer: str, stride: int) -> int | None:
    """Pixels at pre-training, by a table of the first mixer: of agents, or of focused attention."""
    bias, positions = (weights.get(f"{first_mixer}.{name}") for name in _TABLES)
    if bias is not None and bias.dim() == 5:
        return stride * bias.shape[3]
    if positions is not None and positions.dim() == 3:
        return stride * math.isqrt(positions.shape[1])
    return None
