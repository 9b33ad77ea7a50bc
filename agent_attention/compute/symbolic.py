"""Operations that are also right for sizes that a recorded graph leaves open.

``torch.export`` and ``torch.compile`` record one graph for many sizes. There a size is symbolic: it
must not be compared with another, or the graph would be right on one side alone. With ordinary
sizes each of these is the plain operation that it is named after.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.size_cache import cached


def is_symbolic(size: Sequence[int]) -> bool:
    """Whether a graph is being recorded for more than this size."""
    return any(isinstance(side, torch.SymInt) for side in size)


def resize(x: Tensor, size: Pair, mode: str = "bilinear") -> Tensor:
    """Resize of (B, C, H, W) to ``size``, half-pixel centres, no antialias.

    The published weights were trained with exactly this kernel; an equal size is an identity.
    """
    if not is_symbolic(size) and tuple(x.shape[-2:]) == tuple(size):
        return x
    if x.is_meta and not torch.is_grad_enabled():  # a shape, which torch takes milliseconds to find
        return x.new_empty((*x.shape[:2], *size))
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=False)


def pool(x: Tensor, grid: Pair) -> Tensor:
    """Means of (B, C, H, W) over the cells of a grid (a_h, a_w): (B, C, a_h, a_w).

    With a symbolic size as two products: other runtimes' pooling needs to know the cells.
    """
    if not is_symbolic(x.shape[-2:]):
        return F.adaptive_avg_pool2d(x, grid)
    rows, columns = (cell_means(x.shape[axis], grid[axis], x) for axis in (-2, -1))
    return rows @ x @ columns.t()


def cell_means(size: int, cells: int, like: Tensor) -> Tensor:
    """Matrix (cells, size) of means: of all from where a cell begins to where it ends."""
    place, cell = (torch.arange(count, device=like.device) for count in (size, cells))
    begin = (cell * size).div(cells, rounding_mode="floor").unsqueeze(1)
    end = ((cell + 1) * size + cells - 1).div(cells, rounding_mode="floor").unsqueeze(1)
    inside = ((place >= begin) & (place < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def assume_multiple_of(stride: int, x: Tensor) -> Tensor:
    """Images (B, C, H, W), whose symbolic sizes are from then on known to be multiples.

    Sizes that are none are refused where the graph is recorded, or where it is run.
    """
    if not is_symbolic(x.shape[2:]):
        return x
    for side in x.shape[2:]:
        torch._check(side % stride == 0)
    height, width = (side // stride * stride for side in x.shape[2:])
    return crop(x, (height, width))


def crop(x: Tensor, size: Pair) -> Tensor:
    """The first rows and columns of (..., H, W), also of symbolic sizes.

    By index: a slice would be compared with the whole, which a graph could not do without.
    """
    for axis, side in zip((-2, -1), size, strict=True):
        x = x.index_select(axis, torch.arange(side, device=x.device))
    return x


def divide(x: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and rest without the operator ``%``, which ONNX lacks for symbolic sizes."""
    quotient = x // by
    return quotient, x - quotient * by


def missing(side: int, multiple: int) -> int:
    """What a side lacks to the next multiple; ``-side % multiple``, which Dynamo cannot bound."""
    return (multiple - side % multiple) % multiple


def pad_map(x: Tensor, multiple: int) -> Tensor:
    """A map (B, H, W, C) with zeros on the right and at the bottom, to multiples of a side."""
    right, bottom = (missing(x.shape[axis], multiple) for axis in (2, 1))
    if not is_symbolic(x.shape[1:3]) and not right and not bottom:
        return x  # no padding would be a copy
    return F.pad(x, (0, 0, 0, right, 0, bottom))


def join_heads(x: Tensor) -> Tensor:
    """(B, h, N, d) as (B, N, C).

    With symbolic sizes by a copy: a view would be recorded for the memory order of torch's kernel.
    """
    symbolic = is_symbolic(x.shape)
    return torch.cat(x.unbind(1), -1) if symbolic else x.transpose(1, 2).flatten(2)


def resize_tokens(
    table: Tensor, old: Pair, new: Pair, mode: str = "bilinear", front: int = 0
) -> Tensor:
    """A table (1, Hs*Ws, C) of a map of ``old`` size for a map of ``new`` size: (1, H*W, C).

    With so many tokens in ``front`` of the map, which stay as they are.
    """
    if not is_symbolic(new) and tuple(new) == tuple(old):
        return table

    def resized() -> tuple[Tensor]:
        square = table[:, front:].unflatten(1, tuple(old)).permute(0, 3, 1, 2)
        of_map = resize(square, new, mode).permute(0, 2, 3, 1).flatten(1, 2)
        return (torch.cat([table[:, :front], of_map], 1) if front else of_map,)

    return cached(resized, [table], (*new, mode))[0]
