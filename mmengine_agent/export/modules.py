"""What ``tools/export.py`` records of a model: images in, the outputs of its dense heads out."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.backbones.base import Backbone
from agent_attention.compute.symbolic import is_symbolic, pool
from agent_attention.mixers.agent import AgentAttention
from agent_attention.mixers.grids import GridRule
from mmengine_agent.export.check import DifferenceError, Load, difference
from mmengine_agent.export.resize import Resize, double

STRIDE = 32  # of the backbone's coarsest map


@torch.no_grad()
def fix_agent_grids(backbone: nn.Module, shape: Pair) -> list[Pair]:
    """Give agents chosen by a rule the grids that they have for images of ``shape`` (H, W).

    A graph of open sizes has the same agents at all of them.

    Returns:
        the grids that were fixed, in the order of the blocks.
    """
    fixed: list[Pair] = []

    def fix(mixer: Any, args: tuple[Any, Pair]) -> None:
        mixer.agent_shape = mixer.grid(args[1])
        fixed.append(mixer.agent_shape)

    rules = [
        each
        for each in backbone.modules()
        if isinstance(each, AgentAttention) and isinstance(each.agent_shape, GridRule)
    ]
    with ExitStack() as stack:
        for mixer in rules:
            stack.callback(mixer.register_forward_pre_hook(fix).remove)
        if rules:
            backbone.eval()(torch.zeros(1, 3, *shape))
    return fixed


class Prepare(nn.Module):
    """Images to what the backbone takes, as the data preprocessor of a config does it.

    They are padded right and bottom with zeros to multiples of ``multiple``, after they are
    normalised.

    Args:
        settings: the config's ``model.data_preprocessor``.
        order: 'rgb' or 'bgr', of the channels of images of 0 to 255, or 'normalised'.
            (OpenMMLab's pipelines read BGR.)
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: Mapping[str, Any], order: str) -> None:
        super().__init__()
        self.normalise = order != "normalised"
        self.flip = order != ("rgb" if settings.get("bgr_to_rgb") else "bgr")
        self.multiple = padded_to(settings)
        for name, default in (("mean", 0.0), ("std", 1.0)):
            values = torch.tensor(settings.get(name) or [default], dtype=torch.float32)
            self.register_buffer(name, values.view(-1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H', W')."""
        if self.normalise:
            image = ((image.flip(1) if self.flip else image) - self.mean) / self.std
        if self.multiple == 1:
            return image
        height, width = (
            (side + self.multiple - 1) // self.multiple * self.multiple - side
            for side in image.shape[2:]
        )
        return F.pad(image, (0, width, 0, height))


def padded_to(settings: Mapping[str, Any]) -> int:
    """What a data preprocessor pads tested images to multiples of, 1 if it does not pad.

    mmdet's that say nothing of it follow a pipeline that pads.
    """
    if "Seg" in str(settings.get("type")):
        return (settings.get("test_cfg") or {}).get("size_divisor") or 1
    return settings.get("pad_size_divisor") or STRIDE


class Sizes(NamedTuple):
    """Sizes (H, W) of an image on its way; each may be symbolic while a graph is recorded."""

    image: Pair  # that the model sees, without padding: boxes are clipped to it
    picture: Pair  # as it was given: results are in its pixels

    def to_picture(self, boxes: Tensor) -> Tensor:
        """Boxes (..., 4) x1 y1 x2 y2 in pixels of the image to those of the picture."""
        if self.image is self.picture:
            return boxes
        rows, columns = (
            double(given) / double(seen)
            for seen, given in zip(self.image, self.picture, strict=True)
        )
        return boxes * torch.stack([columns, rows] * 2).to(boxes.dtype)


class Exported(nn.Module):
    """A model in evaluation mode, from images (B, 3, H, W) of any size to tensors by name.

    With ``resize`` set, from pictures (1, H, W, 3) of uint8.

    Args:
        model: mmdet's or mmseg's; pooling of it, as in PSPNet's and UPerNet's pyramids, is made fit
            for open sizes.
        prepare: from images to the batch that the model takes.
    """

    least = 4 * STRIDE + 1  # the smallest side that a recording is for: no level of one place
    batch: ClassVar[str] = "any"  # or "1", of a model that takes no more
    model: Any

    def __init__(self, model: Any, prepare: nn.Module) -> None:
        super().__init__()
        self.prepare, self.model = prepare, model
        self.resize: Resize | None = None
        self.multiple: int = getattr(prepare, "multiple", STRIDE)
        if self.multiple % STRIDE:
            self.least = max(self.least, 2 * STRIDE)  # what fills no cell may be dropped
        for each in model.modules():
            if isinstance(each, Backbone):
                each.whole_strides = self.multiple % STRIDE == 0
            if type(each) is nn.AdaptiveAvgPool2d:
                grid: Any = each.output_size
                pair = (grid, grid) if isinstance(grid, int) else grid
                each.forward = partial(pool, grid=pair)  # type: ignore[method-assign]
        self.eval()

    def facts(self) -> dict[str, str]:
        """What a reader of the file has to know of the model."""
        one, resizes = "1" if self.resize else self.batch, str(self.resize is not None).lower()
        return {"batch": one, "with_resize": resizes, "padded_to": str(self.multiple)}

    def enter(self, image: Tensor) -> tuple[Tensor, Sizes]:
        """What the model takes of an input, (B, 3, H', W'), and the sizes of what is in it."""
        if self.resize is None:
            size = (image.shape[2], image.shape[3])
            return self.prepare(image), Sizes(size, size)
        resized = self.resize(image)
        size = (resized.shape[2], resized.shape[3])
        for side in size if is_symbolic(size) else ():
            torch._check(side >= self.least)
        return self.prepare(resized), Sizes(size, (image.shape[1], image.shape[2]))

    def check(self, reference: Any, load: Load, image: Tensor, tolerance: float) -> str:
        """Compare a file with the model.

        Args:
            reference: the model, not made ready for recording.
            load: the file.
            image: (B, 3, H, W).
            tolerance: largest difference that is none.

        Returns:
            a sentence with the largest differences.

        Raises:
            DifferenceError: if the file gives something else.
        """
        found = difference(self, load({}), image)
        if not found <= tolerance:
            raise DifferenceError(f"by {found:.1e}, more than --tolerance {tolerance:.1e}")
        return f"{found:.1e}"
