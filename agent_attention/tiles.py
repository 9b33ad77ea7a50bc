"""Softmax attention in tiles that stay in a CPU's cache, forward and backward.

A tile is a slab of the queries with all keys, or of the keys with all queries, whichever are more
(FlashAttention's scheme, arXiv 2205.14135, with matrix products as large as the cache allows).
Nothing of the size queries x keys exists at once, and for the backward pass nothing of it is kept:
the scores are computed again.

Shapes: q (Q, h, d), k and v (K, h, d), q_bias (Q, h, P), k_bias (K, h, P): tokens come first.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agent_attention.slabs import slabs


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, q_bias: Tensor, k_bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + q_bias k_bias^T) v of one sample: (Q, h, d)."""
    out: Tensor = _TiledAttention.apply(q, k, v, q_bias, k_bias)
    return out


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        out, log_total = _forward(*tensors)
        # of few queries the outcome is small, and no tile of theirs has all keys
        kept = out if len(tensors[0]) < len(tensors[1]) else None
        ctx.save_for_backward(*tensors, log_total, kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, log_total, out = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            return tuple(_backward(grad, tensors, ctx.needs_input_grad, log_total, out))


def _forward(
    q: Tensor, k: Tensor, v: Tensor, q_bias: Tensor, k_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The outcome (Q, h, d), and the logarithm (h, Q, 1) of what each softmax is divided by."""
    heads = q.shape[1]
    out = torch.zeros_like(q, memory_format=torch.contiguous_format)
    largest = q.new_full((heads, len(q), 1), -torch.inf)  # score so far
    total = q.new_zeros(heads, len(q), 1)  # of exp(score - largest) so far
    for i, j in _tiles(q, k):
        scores = _scores(q[i], k[j], q_bias[i], k_bias[j])
        now = torch.maximum(largest[:, i], scores.amax(-1, keepdim=True))
        weights = scores.sub_(now).exp_()
        shrink = (largest[:, i] - now).exp_()
        largest[:, i] = now
        total[:, i] = total[:, i].mul_(shrink).add_(weights.sum(-1, keepdim=True))
        _by_head(out[i]).mul_(shrink).baddbmm_(weights, _by_head(v[j]))
    _by_head(out).div_(total)
    return out, largest.add_(total.log_())


def _backward(
    grad: Tensor,
    tensors: list[Tensor],
    needed: tuple[bool, ...],
    log_total: Tensor,
    out: Tensor | None,
) -> list[Tensor | None]:
    """Gradients of q, k, v, q_bias and k_bias, where needed, from that of the outcome."""
    q, k, v, q_bias, k_bias = tensors
    pairs = zip(tensors, needed, strict=True)
    grads = [torch.zeros(x.shape, dtype=x.dtype) if need else None for x, need in pairs]
    scale = q.shape[-1] ** -0.5
    mean = None if out is None else _by_head(grad * out).sum(-1, keepdim=True)  # (h, Q, 1)
    for i, j in _tiles(q, k, width=2):
        weights = _scores(q[i], k[j], q_bias[i], k_bias[j]).sub_(log_total[:, i]).exp_()
        slope = torch.bmm(_by_head(grad[i]), _by_head(v[j]).transpose(1, 2)).mul_(weights)
        share = slope.sum(-1, keepdim=True) if mean is None else mean[:, i]
        slope.addcmul_(weights, share, value=-1)  # of the scores, (h, t, K) or (h, Q, t)
        down = slope.transpose(1, 2)
        _add_product(grads[0], i, slope, k[j], scale)
        _add_product(grads[1], j, down, q[i], scale)
        _add_product(grads[2], j, weights.transpose(1, 2), grad[i])
        _add_product(grads[3], i, slope, k_bias[j])
        _add_product(grads[4], j, down, q_bias[i])
    return grads


def _tiles(q: Tensor, k: Tensor, width: int = 1) -> Iterator[tuple[slice, slice]]:
    """Slices of the queries and of the keys, for ``width`` tensors of a tile's size at a time."""
    heads, everything = q.shape[1], slice(None)
    if len(q) >= len(k):
        yield from ((part, everything) for part in slabs(len(q), width * heads * len(k)))
    else:
        yield from ((everything, part) for part in slabs(len(k), width * heads * len(q)))


def _scores(q: Tensor, k: Tensor, q_bias: Tensor, k_bias: Tensor) -> Tensor:
    """q k^T / sqrt(d) + q_bias k_bias^T: (h, Q, K)."""
    bias = torch.bmm(_by_head(q_bias), _by_head(k_bias).transpose(1, 2))
    return bias.baddbmm_(_by_head(q), _by_head(k).transpose(1, 2), alpha=q.shape[-1] ** -0.5)


def _add_product(
    grad: Tensor | None, part: slice, left: Tensor, right: Tensor, scale: float = 1.0
) -> None:
    """grad[part] += scale * left right, for left (h, t, K) and right (K, h, d)."""
    if grad is not None:
        _by_head(grad[part]).baddbmm_(left, _by_head(right), alpha=scale)


def _by_head(x: Tensor) -> Tensor:
    """(t, h, d) as (h, t, d), in the same memory."""
    return x.transpose(0, 1)
