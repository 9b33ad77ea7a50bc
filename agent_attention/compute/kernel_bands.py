"""The sums of AFT-conv on a CPU, a band of the map at a time, forward and backward.

Shapes, of one sample: maps (H, W, C) and (H, W, h), in memory as tokens lie there; a band is some
rows of a map, its halo the rows around it that the kernel reaches.
Letters: see ``agent_attention.mixers.agent``; s is the side of the kernel, E is exp(ŵ) - 1.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import settings
from agent_attention.compute.linear import chunk_width, is_small, is_worth
from agent_attention.compute.numerics import exp_to_one

_LEAST, _MOST = -3.0, 20.0  # ŵ for which E loses no digits, and its sums are in range
_THIN = 16  # channels of a head, below which its matrix products are slow
_TENSORS = 3  # of a band
_TILE = 8  # pixels a side, of the weights' gradient


def gated_average(place: Tensor, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor | None:
    """sigmoid(q) Σ exp(k + ŵ) v / Σ exp(k + ŵ); None if the definition is better.

    Args:
        place: ŵ (h, s, s).
        q: (B, N, C).
        k: keys (B, N, h).
        v: values (B, N, C).
        size: of the map, (H, W).

    Returns:
        (B, N, C).
    """
    thin = v.shape[-1] < _THIN * k.shape[-1]
    if not is_worth(q, sys.maxsize if thin else settings().aft_conv):
        return None
    least, most = place.detach().aminmax()
    if not (least > _LEAST and most < _MOST):
        return None
    out, is_safe = _GatedAverage.apply(place, q, k, v, tuple(size))
    return out if is_safe else None


class _Sums:
    """Σ E weights v + Σ weights v, with weights = exp(k), and the same without v, of a sample."""

    def __init__(self, place: Tensor, k: Tensor, v: Tensor, size: Pair) -> None:
        self.kernel = place.expm1()
        self.weights = exp_to_one(k, 0).unflatten(0, size)  # (H, W, h)
        self.v = v.unflatten(0, size)
        flat = self.weights.flatten(0, 1)
        per_head = v.unflatten(-1, (k.shape[-1], -1)).transpose(0, 1)  # (h, N, d)
        self.total = (flat.t().unsqueeze(1) @ per_head).flatten()  # (C,)
        self.below = convolve(self.weights, self.kernel).add_(flat.sum(0))  # (H, W, h)

    def valued(self, rows: slice, out: Tensor) -> None:
        """Write weights v of some rows (R, W, C)."""
        by_head(self.weights[rows], self.v[rows], out)

    def mean(self, valued: Tensor, rows: slice) -> Tensor:
        """The one sum over the other (R, W, C), from ``valued`` with its halo."""
        above = convolve(valued, self.kernel, halo=True).add_(self.total)
        return by_head(self.below[rows].reciprocal(), above, above)


class _GatedAverage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, place: Tensor, q: Tensor, k: Tensor, v: Tensor, size: Pair
    ) -> tuple[Tensor, bool]:
        out = torch.empty(q.shape, dtype=q.dtype)
        is_safe = True
        for b in range(len(q)):
            sums = _Sums(place, k[b], v[b], size)
            is_safe = is_safe and is_small(sums.total) and is_small(sums.below)
            gates, into = q[b].unflatten(0, size), out[b].unflatten(0, size)
            for rows, valued in _with_halo(sums.valued, into, len(place[0])):
                torch.mul(gates[rows].sigmoid(), sums.mean(valued, rows), out=into[rows])
        ctx.save_for_backward(place, q, k, v)
        ctx.size = size
        return out, is_safe

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
        place, q, k, v = ctx.saved_tensors
        of_q, of_k, of_v = (torch.empty(x.shape, dtype=x.dtype) for x in (q, k, v))
        of_kernel = torch.zeros_like(place)
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            for b in range(len(q)):
                sums = _Sums(place, k[b], v[b], ctx.size)
                maps = [x[b].unflatten(0, ctx.size) for x in (q, grad, of_q, of_k, of_v)]
                _backward(sums, maps, of_kernel)
        return of_kernel.mul_(place.exp()), of_q, of_k, of_v, None


def _backward(sums: _Sums, maps: Sequence[Tensor], of_kernel: Tensor) -> None:
    """Of a sample's q and output, write the gradients of q, k and v; add to that of the kernel."""
    q, grad, of_q, of_k, of_v = maps
    heads, side, _ = of_kernel.shape
    of_above, of_below = torch.empty_like(of_v), torch.empty_like(sums.below)
    for rows, valued in _with_halo(sums.valued, q, side):
        gate, mean = q[rows].sigmoid(), sums.mean(valued, rows)
        of_mean = by_head(sums.below[rows].reciprocal(), gate * grad[rows], of_above[rows])
        of_below[rows] = mean.mul_(of_mean).unflatten(-1, (heads, -1)).sum(-1).neg_()
        # of the gate: grad mean; mean was overwritten by mean of_mean = mean gate grad / below
        torch.mul(by_head(sums.below[rows], mean, mean), gate.neg_().add_(1), out=of_q[rows])
        of_kernel.add_(kernel_gradient(valued, of_above[rows], side, heads))
    above, below = of_above.sum((0, 1)), of_below.sum((0, 1))
    of_kernel.add_(kernel_gradient(_pad(sums.weights, side), of_below, side, heads))
    turned = sums.kernel.flip((1, 2))
    of_weights = convolve(of_below, turned).add_(below)

    def copy(rows: slice, out: Tensor) -> None:
        out.copy_(of_above[rows])

    for rows, part in _with_halo(copy, q, side):
        of_valued = convolve(part, turned, halo=True).add_(above)
        by_head(sums.weights[rows], of_valued, of_v[rows])
        product = of_valued.mul_(sums.v[rows]).unflatten(-1, (heads, -1)).sum(-1)
        torch.mul(product.add_(of_weights[rows]), sums.weights[rows], out=of_k[rows])


def _with_halo(
    write: Callable[[slice, Tensor], None], like: Tensor, side: int
) -> Iterator[tuple[slice, Tensor]]:
    """Bands of a map (H, W, C), all in the same memory, with halos that are 0 beyond the map.

    Args:
        write: writes some rows.
        like: a map of the same size and type.
        side: s.
    """
    (height, width, channels), pad = like.shape, side // 2
    buffer: Tensor | None = None
    for rows in row_chunks(height, chunk_width(_TENSORS, channels), width):
        known = slice(max(rows.start - pad, 0), min(rows.stop + pad, height))
        count, start = rows.stop - rows.start + 2 * pad, known.start - rows.start + pad
        if buffer is None:
            buffer = like.new_empty(count, width, channels)
        band, stop = buffer[:count], start + known.stop - known.start
        write(known, band[start:stop])
        band[:start] = band[stop:] = 0
        yield rows, band


def _pad(x: Tensor, side: int) -> Tensor:
    return F.pad(x, (0, 0, 0, 0, side // 2, side // 2))


def by_head(factors: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """x (R, W, C) times a factor for each head (R, W, h)."""
    heads = factors.shape[-1]
    into = None if out is None else out.unflatten(-1, (heads, -1))
    return torch.mul(x.unflatten(-1, (heads, -1)), factors.unsqueeze(-1), out=into).flatten(-2)


def convolve(x: Tensor, kernel: Tensor, halo: bool = False) -> Tensor:
    """A map (R, W, C) convolved with the kernel of its head (h, s, s); a halo is used up."""
    pad, channels = kernel.shape[-1] // 2, x.shape[-1]
    weight = kernel.repeat_interleave(channels // len(kernel), 0).unsqueeze(1)
    maps = x.unsqueeze(0).permute(0, 3, 1, 2)  # channels last
    out = F.conv2d(maps, weight, padding=(0 if halo else pad, pad), groups=channels)
    return out.permute(0, 2, 3, 1)[0].contiguous()


def kernel_gradient(x: Tensor, grad: Tensor, side: int, heads: int) -> Tensor:
    """The gradient (h, s, s) of the kernel of ``convolve``, of x (R + s - 1, W, C) with its halo.

    The channels of a head share a kernel, so that this is a matrix product: of pixels a of a row's
    tiles by pixels b of s rows' tiles and their margins, summed over tiles and channels. Of the
    entries, those count whose b - a is a place of the kernel.
    """
    wide = _TILE + side - 1
    pad, fill = side // 2, -grad.shape[1] % _TILE
    tiles = F.pad(grad, (0, 0, 0, fill)).unfold(1, _TILE, _TILE)  # (R, tiles, C, a)
    wider = F.pad(x, (0, 0, pad, pad + fill)).unfold(1, wide, _TILE)
    a, b = (
        each.unflatten(2, (heads, -1)).permute(2, 0, 4, 1, 3).flatten(3).contiguous()
        # (h, R, a, tiles * d)
        for each in (tiles, wider)
    )
    rows, _, length = a[0].shape
    product = a.new_empty(heads, _TILE, side * wide)
    for head in range(heads):
        some = b[head].as_strided((rows, side * wide, length), (wide * length, length, 1))
        torch.sum(a[head] @ some.mT, 0, out=product[head])
    entries = (heads, side, side, _TILE)
    return product.as_strided(entries, (_TILE * side * wide, wide, 1, side * wide + 1)).sum(-1)
