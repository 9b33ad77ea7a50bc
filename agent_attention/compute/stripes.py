"""How a map is cut into stripes of some columns or rows, and how stripes become a map again."""

from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.symbolic import is_symbolic, missing


def cut_stripes(x: Tensor, size: Pair, width: int, vertical: bool) -> Tensor:
    """Tokens (B, N, C) of a map (H, W) -> stripes (B*G, H, M, C), or (B*G, M, W, C)."""
    x = x.unflatten(1, tuple(size))
    lacking = missing(size[1 if vertical else 0], width)
    if is_symbolic(size) or lacking:
        around = (lacking // 2, lacking - lacking // 2)
        x = F.pad(x, (0, 0, *around) if vertical else (0, 0, 0, 0, *around))
    if not vertical:
        return x.unflatten(1, (-1, width)).flatten(0, 1)
    return x.unflatten(2, (-1, width)).transpose(1, 2).flatten(0, 1)


def join_stripes(x: Tensor, size: Pair, width: int, vertical: bool) -> Tensor:
    """Stripes -> tokens (B, N, C); what was padding is cut off."""
    side = size[1 if vertical else 0]
    count, front = (side + width - 1) // width, missing(side, width) // 2
    if vertical:
        x = x.unflatten(0, (-1, count)).transpose(1, 2).flatten(2, 3)  # (B, H, W', C)
        return x[:, :, front : front + side].flatten(1, 2)
    return x.unflatten(0, (-1, count)).flatten(1, 2)[:, front : front + side].flatten(1, 2)
