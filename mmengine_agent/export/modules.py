"""What ``tools/export.py`` records of a model: images in, the outputs of its dense heads out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.symbolic import pool

STRIDE = 32  # of the backbone's coarsest map; images are padded to multiples of it


class Exported(nn.Module):
    """A model in evaluation mode, from images (B, 3, H, W) of any size to tensors by name.

    Images are padded right and bottom with zeros, after they are normalised, as mmdet does it.

    Args:
        model: mmdet's or mmseg's; layers of it are replaced (see ``replace_layers``).
        normalise: from the images that are given to those that the backbone takes.
    """

    least = 4 * STRIDE + 1  # the smallest side that a recording is for: no level of one place
    model: Any

    def __init__(self, model: Any, normalise: nn.Module) -> None:
        super().__init__()
        self.normalise = normalise
        self.model = replace_layers(model)
        self.eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """What is recorded; each kind of model has its own."""
        raise NotImplementedError

    def prepare(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> normalised and padded to multiples of 32 (B, 3, H', W')."""
        height, width = (_rounded_up(side) for side in image.shape[2:])
        margins = (0, width - image.shape[3], 0, height - image.shape[2])
        return F.pad(self.normalise(image), margins)


def _rounded_up(side: int) -> int:
    return (side + STRIDE - 1) // STRIDE * STRIDE


class Normalise(nn.Module):
    """Images of 0 to 255 to what the backbone takes, as the data preprocessor of a config does.

    Args:
        settings: the config's ``model.data_preprocessor``.
        order: of the channels of the images, 'rgb' or 'bgr'. (OpenMMLab's pipelines read BGR.)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: Mapping[str, Any], order: str) -> None:
        super().__init__()
        self.flip = order != ("rgb" if settings.get("bgr_to_rgb") else "bgr")
        for name, default in (("mean", 0.0), ("std", 1.0)):
            values = torch.tensor(settings.get(name) or [default], dtype=torch.float32)
            self.register_buffer(name, values.view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        image = image.flip(1) if self.flip else image
        return (image - self.mean) / self.std


def replace_layers(model: nn.Module) -> nn.Module:
    """Replace, in place, other packages' layers that would make numbers of open sizes."""
    child: Any
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.AdaptiveAvgPool2d:
                grid: Any = child.output_size
                setattr(parent, name, Pool(grid))
            elif _is_upsample(child):
                setattr(parent, name, Upsample(child))
    return model


class Pool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` for open sizes too, as in PSPNet's and UPerNet's pyramids."""

    def __init__(self, grid: int | Pair) -> None:
        super().__init__()
        self.grid = (grid, grid) if isinstance(grid, int) else grid

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, *grid)."""
        return pool(x, self.grid)


class Upsample(nn.Module):
    """mmseg's ``Upsample`` by a whole factor, for open sizes too."""

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.factor = int(plain.scale_factor)
        self.options = {"mode": plain.mode, "align_corners": plain.align_corners}

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, factor*H, factor*W)."""
        size = (x.shape[2] * self.factor, x.shape[3] * self.factor)
        return F.interpolate(x, size=size, **self.options)


def _is_upsample(module: Any) -> bool:
    kind = type(module)
    named = kind.__name__ == "Upsample" and kind.__module__.startswith("mmseg.")
    return named and not module.size and module.scale_factor == int(module.scale_factor)
