"""Operations that are also right for sizes that a recorded graph leaves open.

``torch.export`` and ``torch.compile`` record one graph for many sizes. There a size is symbolic: it
must not be compared with another, or the graph would be right on one side alone. With ordinary
sizes each of these is the plain operation that it is named after.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.operators import is_compiling, linear_operators
from agent_attention.compute.size_cache import cached

aten = torch.ops.aten


def is_symbolic(size: Sequence[int]) -> bool:
    """Whether a graph is being recorded for more than this size."""
    # to Dynamo all sizes are of the type int
    if is_dynamo_compiling() or any(isinstance(side, torch.SymInt) for side in size):
        known = torch.fx.experimental.symbolic_shapes.has_static_value
        return not all(known(side) for side in size)
    return False


def fix(count: int) -> int:
    """A number that follows from sizes, as a constant of the graph that is being recorded.

    The graph is then refused, and another one recorded, where sizes give another number.
    """
    if not is_symbolic((count,)):
        return count
    return int(torch.fx.experimental.symbolic_shapes.guard_scalar(count))


def resize(x: Tensor, size: Pair, mode: str = "bilinear") -> Tensor:
    """Resize of (B, C, H, W) to ``size``, half-pixel centres, no antialias.

    The published weights were trained with exactly this kernel; an equal size is an identity.
    """
    if not is_symbolic(size) and tuple(x.shape[-2:]) == tuple(size):
        return x
    if is_compiling():
        return _resize(x, (*x.shape[-2:], *size, int(mode == "bicubic")))
    if x.is_meta and not torch.is_grad_enabled():  # a shape, which torch takes milliseconds to find
        return x.new_empty((*x.shape[:2], *size))
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=False)


_KINDS = (aten.upsample_bilinear2d_backward, aten.upsample_bicubic2d_backward)
_resize, _ = linear_operators(  # numbers: old size, new size, whether bicubic
    "resize",
    lambda x, n: resize(x, (n[2], n[3]), "bicubic" if n[4] else "bilinear"),
    lambda x, n: (*x.shape[:2], n[2], n[3]),
    lambda x, n: _KINDS[n[4]](x, n[2:4], (*x.shape[:2], n[0], n[1]), False, None, None),
    lambda x, n: (*x.shape[:2], n[0], n[1]),
)


def pool(x: Tensor, grid: Pair) -> Tensor:
    """Means of (B, C, H, W) over the cells of a grid (a_h, a_w): (B, C, a_h, a_w).

    With a symbolic size as two products: other runtimes' pooling needs to know the cells.
    """
    if is_compiling():
        tokens = x.permute(0, 2, 3, 1).flatten(1, 2)  # as maps lie in memory
        return _pool(tokens, (*x.shape[-2:], *grid)).unflatten(1, grid).permute(0, 3, 1, 2)
    if not is_symbolic(x.shape[-2:]):
        return F.adaptive_avg_pool2d(x, grid)
    rows, columns = (cell_means(x.shape[axis], grid[axis], x) for axis in (-2, -1))
    return rows @ x @ columns.t()


def _spread(x: Tensor, numbers: Sequence[int]) -> Tensor:
    """The transposed of a pool, of tokens (B, n, C)."""
    height, width, *grid = numbers
    like = x.new_empty((x.shape[0], height, width, x.shape[2])).permute(0, 3, 1, 2)
    grad = x.unflatten(1, grid).permute(0, 3, 1, 2)
    return aten._adaptive_avg_pool2d_backward(grad, like).permute(0, 2, 3, 1).flatten(1, 2)


_pool, _ = linear_operators(  # of tokens (B, N, C); numbers: size, grid
    "pool",
    lambda x, n: (
        F.adaptive_avg_pool2d(x.unflatten(1, n[:2]).permute(0, 3, 1, 2), (n[2], n[3]))
        .permute(0, 2, 3, 1)
        .flatten(1, 2)
    ),
    lambda x, n: (x.shape[0], n[2] * n[3], x.shape[2]),
    _spread,
    lambda x, n: (x.shape[0], n[0] * n[1], x.shape[2]),
)


def cell_means(size: int, cells: int, like: Tensor) -> Tensor:
    """Matrix (cells, size) of means: of all from where a cell begins to where it ends."""
    place, cell = (torch.arange(count, device=like.device) for count in (size, cells))
    begin = (cell * size).div(cells, rounding_mode="floor").unsqueeze(1)
    end = ((cell + 1) * size + cells - 1).div(cells, rounding_mode="floor").unsqueeze(1)
    inside = ((place >= begin) & (place < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def assume_multiple_of(stride: int, x: Tensor) -> Tensor:
    """Images (B, C, H, W), whose symbolic sizes are from then on known to be multiples.

    Sizes that are none are refused where the graph is exported, or where it is run;
    ``torch.compile`` takes them.
    """
    if is_dynamo_compiling() or not is_symbolic(x.shape[2:]):
        return x
    for side in x.shape[2:]:
        torch._check(side % stride == 0)
    height, width = (side // stride * stride for side in x.shape[2:])
    return crop(x, (height, width))


def crop(x: Tensor, size: Pair, axes: Pair = (-2, -1)) -> Tensor:
    """The first rows and columns of (..., H, W), or of other axes; of symbolic sizes too.

    By index: a slice would be compared with the whole, which a graph could not do without.
    """
    for axis, side in zip(axes, size, strict=True):
        x = x.index_select(axis, torch.arange(side, device=x.device))
    return x


def divide(x: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Quotient and rest without the operator ``%``, which ONNX lacks for symbolic sizes."""
    quotient = x // by
    return quotient, x - quotient * by


def count_cells(side: int, cell: int) -> int:
    """How many cells cover a side, the last one perhaps in part: ``ceil(side / cell)``.

    In the form that torch keeps flat: cells of cells are those of one quotient, (side - 1) // 8 + 1
    for 2 in 4. With ``side + cell - 1`` or ``%`` a symbolic size would be longer in each stage, and
    what torch proves of it takes minutes. Of no negative numbers, whose quotients ONNX rounds up.
    """
    return (side - 1) // cell + 1


def missing(side: int, multiple: int) -> int:
    """What a side lacks to the next multiple."""
    return count_cells(side, multiple) * multiple - side


def pad_ends(x: Tensor, multiple: int, axes: Pair) -> Tensor:
    """Zeros at the ends of a map's rows and columns, the two axes, up to multiples of a side.

    Symbolic sizes get more than enough, since torch asks whether there is any padding at all.
    """
    sides = [x.shape[axis] for axis in axes]
    lacking = [missing(side, multiple) for side in sides]
    if not is_symbolic(lacking) and not any(lacking):
        return x  # padding of nothing is a copy
    if is_compiling():
        return _pad(x, (*axes, *lacking, *sides))
    if is_symbolic(lacking):
        x = F.pad(x, _at_ends(x, axes, (multiple - 1, multiple - 1)))
        whole = [side + more for side, more in zip(sides, lacking, strict=True)]
        return crop(x, (whole[0], whole[1]), axes)
    return F.pad(x, _at_ends(x, axes, lacking))


def _with_sides(x: Tensor, axes: Sequence[int], sides: Sequence[int]) -> list[int]:
    """A tensor's shape with other lengths of two axes."""
    shape = list(x.shape)
    shape[axes[0]], shape[axes[1]] = sides
    return shape


_pad, _ = linear_operators(  # numbers: two axes, what their sides lack, the sides
    "pad",
    lambda x, n: F.pad(x, _at_ends(x, (n[0], n[1]), n[2:4])),
    lambda x, n: _with_sides(x, n[:2], (n[4] + n[2], n[5] + n[3])),
    lambda x, n: x.narrow(n[0], 0, n[4]).narrow(n[1], 0, n[5]),
    lambda x, n: _with_sides(x, n[:2], n[4:]),
)


def _at_ends(x: Tensor, axes: Pair, counts: Sequence[int]) -> list[int]:
    """What ``F.pad`` takes for so much at the ends of axes."""
    pads = [0] * (2 * x.dim())
    for axis, count in zip(axes, counts, strict=True):
        pads[2 * (x.dim() - 1 - axis % x.dim()) + 1] = count
    return pads


def join_heads(x: Tensor) -> Tensor:
    """(B, h, N, d) as (B, N, C).

    In an export of symbolic sizes by a copy: a view would be recorded for the memory order of
    torch's kernel.
    """
    by_copy = is_symbolic(x.shape) and not is_dynamo_compiling()
    return torch.cat(x.unbind(1), -1) if by_copy else x.transpose(1, 2).flatten(2)


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
