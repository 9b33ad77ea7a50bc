"""The neck that makes a pyramid of a plain backbone's last map (ViTDet, arXiv 2203.16527)."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.arguments import check_integer

_LEVELS = 4  # made by layers; coarser ones are every second place of the one before
_EPS = 1e-6


class SimpleFeaturePyramid(BaseModule):
    """Simple feature pyramid: maps of several strides, each from the one map that is given.

    As in section 3 of the paper and its authors' code, for a map of stride 16:

    - stride 4: two transposed convolutions, with a norm and GELU between them,
    - stride 8: one transposed convolution,
    - stride 16: the map,
    - stride 32: the largest of 2 x 2 places,
    - each of these through convolutions of 1 x 1 and 3 x 3, a norm behind either,
    - stride 64: every second place of stride 32, and so on.

    All norms are LayerNorms over the channels.

    Args:
        in_channels: channels C of the map.
        out_channels: channels of all levels.
        num_outs: levels, at least 4.
        init_cfg: mmengine's; None keeps the initialisation of the layers.

    Raises:
        ValueError: on a value that is not allowed; the message says what is.
    """

    def __init__(
        self, in_channels: int, out_channels: int = 256, num_outs: int = 5, init_cfg: Any = None
    ) -> None:
        super().__init__(init_cfg)
        check_integer("in_channels", in_channels, 4, 1 << 16)
        check_integer("out_channels", out_channels, 1, 1 << 16)
        check_integer("num_outs", num_outs, _LEVELS, 8)
        self.in_channels, self.out_channels, self.num_outs = in_channels, out_channels, num_outs
        c, half, quarter = in_channels, in_channels // 2, in_channels // 4
        finest = [double(c, half), ChannelLayerNorm(half), nn.GELU(), double(half, quarter)]
        self.levels = nn.ModuleList(
            [
                nn.Sequential(*finest, *projection(quarter, out_channels)),
                nn.Sequential(double(c, half), *projection(half, out_channels)),
                nn.Sequential(*projection(c, out_channels)),
                nn.Sequential(nn.MaxPool2d(2), *projection(c, out_channels)),
            ]
        )

    def forward(self, maps: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The last map (B, C, H, W) -> (B, C', 4H, 4W), (B, C', 2H, 2W), (B, C', H, W), ....

        Odd sides are rounded down from stride 16 to 32, and up from there on.

        Args:
            maps: of a backbone, or one map.

        Raises:
            ValueError: if the map has other channels, or a side of one place.
        """
        x = maps if isinstance(maps, Tensor) else maps[-1]
        if x.shape[1] != self.in_channels:
            channels = x.shape[1]
            raise ValueError(f"the neck has in_channels={self.in_channels}, its map {channels}")
        if min(x.shape[2:]) < 2:
            height, width = x.shape[2:]
            raise ValueError(f"a map of {height}x{width} is too small: pass at least 2x2")
        outs = [level(x) for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], kernel_size=1, stride=2))
        return tuple(outs)


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of a map, at each place for itself.

    Also a layer of its own that heads take, as ``norm_cfg=dict(type='ChannelLayerNorm')``.

    Args:
        num_features: channels C.
        eps: added to the variance.
    """

    def __init__(self, num_features: int, eps: float = _EPS) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def double(in_channels: int, out_channels: int) -> nn.Module:
    """(B, C, H, W) -> (B, C', 2H, 2W), by a transposed convolution."""
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


def projection(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    """Convolutions of 1 x 1 and 3 x 3, with norms in the place of biases."""
    return (
        nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        ChannelLayerNorm(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        ChannelLayerNorm(out_channels),
    )
