"""Resizing of images inside of what is exported, as OpenCV does it for OpenMMLab's pipelines."""

from typing import Any

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair

_ONE = 2**11  # OpenCV's weights of pixels are whole numbers of this part


class Resize(nn.Module):
    """Images (1, H, W, 3) of uint8 to (1, 3, h, w) of float32, bilinearly.

    As OpenCV's INTER_LINEAR to the last bit, rounding included: pixels have their centres at
    halves, nothing is smoothed.

    Args:
        scale: (width, height) to fit into.
        keep_ratio: whether both sides change alike, as far as whole pixels let them; the longer
            side then fits the larger number, whichever it is.
    """

    def __init__(self, scale: Pair, keep_ratio: bool) -> None:
        super().__init__()
        self.scale, self.keep_ratio = scale, keep_ratio

    def size(self, height: Any, width: Any) -> tuple[Any, Any]:
        """The size (h, w) of the result for an image (H, W)."""
        if not self.keep_ratio:
            return self.scale[1], self.scale[0]
        sides = torch.stack([double(height), double(width)])
        factor = torch.minimum(max(self.scale) / sides.max(), min(self.scale) / sides.min())
        new = (sides * factor + 0.5).long()  # in double precision, as mmcv rounds
        made = []
        for each in new.unbind():
            side = each.item()
            torch._check(side >= 1)
            torch._check(side <= max(self.scale))
            made.append(side)
        return made[0], made[1]

    def forward(self, image: Tensor) -> Tensor:
        """(1, H, W, 3) -> (1, 3, h, w)."""
        height, width = self.size(image.shape[1], image.shape[2])
        top, bottom, y = neighbours(image.shape[1], height)
        left, right, x = neighbours(image.shape[2], width)
        pixels = image.int()
        x, y = x.view(-1, 1), y.view(-1, 1, 1)

        def line(rows: Tensor) -> Tensor:
            chosen = pixels.index_select(1, rows)
            mixed = chosen.index_select(2, left) * (_ONE - x) + chosen.index_select(2, right) * x
            return mixed.div(16, rounding_mode="floor")

        part = 2**16
        upper = (line(top) * (_ONE - y)).div(part, rounding_mode="floor")
        lower = (line(bottom) * y).div(part, rounding_mode="floor")
        mixed = (upper + lower + 2).div(4, rounding_mode="floor")
        return mixed.permute(0, 3, 1, 2).float()


def neighbours(old: Any, new: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``new`` places along a side of ``old`` pixels both neighbours, and the second's weight."""
    ratio = double(old) / double(new)
    place = ((torch.arange(new).double() + 0.5) * ratio - 0.5).float()
    first = place.floor()
    weight = ((place - first) * _ONE).round().int()
    last = old - 1
    return first.long().clamp(0, last), (first.long() + 1).clamp(0, last), weight


def double(side: Any) -> Tensor:
    """A size, which may be symbolic, as a tensor of double precision."""
    return torch.scalar_tensor(side, dtype=torch.float64)
