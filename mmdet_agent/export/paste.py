"""Small masks of boxes as masks of the picture."""

import torch
from torch import Tensor

from agent_attention.arguments import Pair


def paste(shapes: Tensor, boxes: Tensor, size: Pair, threshold: float) -> Tensor:
    """Stretch the mask of each box over it, bilinearly, as mmdet does it on a CPU.

    Args:
        shapes: probabilities (B, N, S, S).
        boxes: (B, N, 4), x1 y1 x2 y2 in pixels.
        size: (H, W) of the picture.
        threshold: least probability of a pixel that is in.

    Returns:
        bool (B, N, H, W).
    """
    x1, y1, x2, y2 = boxes.flatten(0, 1).unbind(1)
    rows = stretch(y1, y2, shapes.shape[2], size[0])
    columns = stretch(x1, x2, shapes.shape[3], size[1])
    values = rows @ shapes.flatten(0, 1) @ columns.transpose(1, 2)
    return (values >= threshold).reshape(*shapes.shape[:2], *size)


def stretch(low: Tensor, high: Tensor, cells: int, side: int) -> Tensor:
    """Weights (R, side, cells) of cells of a mask in pixels, along one axis.

    Args:
        low: (R,), where boxes begin, in pixels.
        high: (R,), where they end.
        cells: of the mask.
        side: of the picture.
    """
    pixel = torch.arange(side, device=low.device)
    length = (high - low).unsqueeze(1)
    # a box without a side shows the middle of its mask
    share = torch.where(length == 0, 0.5, (pixel + 0.5 - low.unsqueeze(1)) / length)
    place = (share * cells - 0.5).unsqueeze(2)
    weights = (1 - (place - torch.arange(cells, device=low.device)).abs()).clamp(min=0)
    near = (pixel >= low.floor().unsqueeze(1) - 1) & (pixel < high.ceil().unsqueeze(1) + 1)
    return weights * near.unsqueeze(2)
