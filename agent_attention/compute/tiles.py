"""Agent attention in tiles that stay in a CPU's cache, forward and backward.

A tile is some rows of the map with all agents (FlashAttention's scheme, arXiv 2205.14135, with
matrix products as large as the cache allows). Nothing of the size agents x tokens exists at once,
and for the backward pass nothing of it is kept: the scores are computed again.

One sample comes after the other, all in the memory of one result.

Shapes: agents (B, h, n, d) and tokens (B, h, N, d), strided as it comes; scores of a tile of T
tokens of a sample (h, n, T). What has no gradient, ``fixed``, is (m_h, m_w, x) of the factors.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agent_attention.compute.bias import Factors
from agent_attention.compute.chunks import row_chunks

Fixed = tuple[Tensor, Tensor, Tensor]  # m_h, m_w, x
Gradients = tuple[Tensor | None, ...]
aten = torch.ops.aten
_LOG2_E = math.log2(math.e)  # torch takes a third of the time of exp for exp2


def aggregate(a: Tensor, k: Tensor, v: Tensor, bias: Factors) -> Tensor:
    """Agents attend to all tokens: softmax(a kᵀ / √d + B) v, (B, h, n, d)."""
    out: Tensor = _Aggregate.apply(a, k, v, tuple(bias[:3]), bias.y, bias.row)
    return out


def broadcast(q: Tensor, a: Tensor, v_a: Tensor, bias: Factors) -> Tensor:
    """Tokens attend to all agents: softmax(q aᵀ / √d + Bᵀ) v_a, (B, h, N, d)."""
    out: Tensor = _Broadcast.apply(a, q, v_a, tuple(bias[:3]), bias.y, bias.row)
    return out


def broadcast_into(out: Tensor, q: Tensor, a: Tensor, v_a: Tensor, bias: Factors) -> None:
    """Write what ``broadcast`` gives to ``out`` (B, h, N, d), which may be ``q`` itself."""
    for into, tokens, agents, values in zip(out, q, a, v_a, strict=True):
        for rows, part in _tiles(bias, agents.shape[:2].numel()):
            weights = _over_agents(_scores(agents, tokens[:, part], bias, rows))
            _set_product(into[:, part], weights.mT, values)


class _Aggregate(torch.autograd.Function):
    """Softmax over the tokens, of which no tile has all: sums are kept as they come in."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, k: Tensor, v: Tensor, fixed: Fixed, y: Tensor, row: Tensor
    ) -> Tensor:
        out, log_total = aggregate_forward(a, k, v, Factors(*fixed, y, row))
        ctx.save_for_backward(a, k, v, y, row, out, log_total)
        ctx.fixed = fixed
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        a, k, v, y, row, *sums = ctx.saved_tensors
        fixed: Fixed = ctx.fixed
        bias = Factors(*fixed, y, row)
        return aggregate_backward(grad, ctx.needs_input_grad, a, k, v, bias, *sums)


def aggregate_forward(a: Tensor, k: Tensor, v: Tensor, bias: Factors) -> tuple[Tensor, Tensor]:
    """What ``aggregate`` gives, and log2 of the sums of exp(scores) (B, h, n, 1)."""
    out, log_total = _tokens_like(a), a.new_empty(*a.shape[:3], 1)
    for sample in zip(a, k, v, out, log_total, strict=True):
        _aggregate_into(*sample, bias)
    return out, log_total


def aggregate_backward(
    grad: Tensor,
    needed: tuple[bool, ...],
    a: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Factors,
    out: Tensor,
    log_total: Tensor,
) -> Gradients:
    """Gradients of a, k, v, nothing, y and row, where they are needed."""
    scores = _ScoreGradients(a, k, bias, needed)
    of_v = _tokens_like(v) if needed[2] else None
    mean = (grad * out).sum(-1, keepdim=True)  # (B, h, n, 1)
    with torch.autocast("cpu", enabled=False):  # as in the forward pass
        for b, rows, part in _tiles_of_batch(bias, a):
            weights = _scores(a[b], k[b, :, part], bias, rows, _LOG2_E)
            weights.sub_(log_total[b]).exp2_()
            if of_v is not None:
                _set_product(of_v[b, :, part], weights.mT, grad[b])
            slope = torch.bmm(grad[b], v[b, :, part].mT)
            scores.add(b, rows, part, slope.sub_(mean[b]).mul_(weights))
    return scores.of_a, scores.of_tokens, of_v, None, scores.of_y, scores.of_row


def _aggregate_into(
    a: Tensor, k: Tensor, v: Tensor, out: Tensor, log_total: Tensor, bias: Factors
) -> None:
    """Write the output (h, n, d) of a sample, and log2 of the sums of exp(scores) (h, n, 1)."""
    out.zero_()
    largest = torch.full_like(log_total, -torch.inf)  # score so far
    total = torch.zeros_like(log_total)  # of exp(score - largest) so far
    for rows, part in _tiles(bias, a.shape[:2].numel()):
        scores = _scores(a, k[:, part], bias, rows, _LOG2_E)
        now = torch.maximum(largest, scores.amax(-1, keepdim=True))
        weights = scores.sub_(now).exp2_()
        shrink = largest.sub_(now).exp2_()
        largest = now
        total.mul_(shrink).add_(weights.sum(-1, keepdim=True))
        out.mul_(shrink).baddbmm_(weights, v[:, part])
    out.div_(total)
    torch.add(largest, total.log2_(), out=log_total)


class _Broadcast(torch.autograd.Function):
    """Softmax over the agents, of which each tile has all."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, q: Tensor, v_a: Tensor, fixed: Fixed, y: Tensor, row: Tensor
    ) -> Tensor:
        ctx.save_for_backward(a, q, v_a, y, row)
        ctx.fixed = fixed
        out = _tokens_like(q)
        broadcast_into(out, q, a, v_a, Factors(*fixed, y, row))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        a, q, v_a, y, row = ctx.saved_tensors
        fixed: Fixed = ctx.fixed
        bias = Factors(*fixed, y, row)
        return broadcast_backward(grad, ctx.needs_input_grad, a, q, v_a, bias)


def broadcast_backward(
    grad: Tensor, needed: tuple[bool, ...], a: Tensor, q: Tensor, v_a: Tensor, bias: Factors
) -> Gradients:
    """Gradients of a, q, v_a, nothing, y and row, where they are needed."""
    scores = _ScoreGradients(a, q, bias, needed)
    of_v = torch.zeros_like(v_a) if needed[2] else None
    with torch.autocast("cpu", enabled=False):  # as in the forward pass
        for b, rows, part in _tiles_of_batch(bias, a):
            weights = _over_agents(_scores(a[b], q[b, :, part], bias, rows))
            if of_v is not None:
                _add_product(of_v[b], weights, grad[b, :, part])
            slope = torch.bmm(v_a[b], grad[b, :, part].mT)
            aten._softmax_backward_data.out(slope, weights, 1, slope.dtype, grad_input=slope)
            scores.add(b, rows, part, slope)
    return scores.of_a, scores.of_tokens, of_v, None, scores.of_y, scores.of_row


class _ScoreGradients:
    """Gradients of what the scores are made of, where needed, from those of tile after tile."""

    def __init__(self, a: Tensor, tokens: Tensor, bias: Factors, needed: tuple[bool, ...]) -> None:
        self.a, self.tokens, self.bias = a, tokens, bias
        self.of_a = torch.zeros_like(a) if needed[0] else None
        self.of_tokens = _tokens_like(tokens) if needed[1] else None
        self.of_y = torch.zeros_like(bias.y) if needed[4] else None
        self.of_row = torch.zeros_like(bias.row) if needed[5] else None

    def add(self, b: int, rows: slice, part: slice, slope: Tensor) -> None:
        """Take in the gradient (h, n, T) of the scores of a tile of the b-th sample."""
        scale = self.a.shape[-1] ** -0.5
        if self.of_a is not None:
            _add_product(self.of_a[b], slope, self.tokens[b, :, part], scale)
        if self.of_tokens is not None:
            _set_product(self.of_tokens[b, :, part], slope.mT, self.a[b], scale)
        if self.of_y is None and self.of_row is None:
            return
        m_h, m_w, x, *_ = self.bias
        base = _interpolate(m_h.t(), m_w.t(), slope).unflatten(2, (-1, x.shape[1]))
        if self.of_y is not None:
            self.of_y[:, :, rows] += base @ x.t()
        if self.of_row is not None:
            self.of_row += base.sum(2, keepdim=True)


def _tiles_of_batch(bias: Factors, a: Tensor) -> Iterator[tuple[int, slice, slice]]:
    """Tiles of each sample for the backward pass, in which two numbers are made for a score."""
    for b in range(len(a)):
        for rows, part in _tiles(bias, 2 * a.shape[1:3].numel()):
            yield b, rows, part


def _tiles(bias: Factors, width: int) -> Iterator[tuple[slice, slice]]:
    """Rows of the map and their tokens, ``width`` numbers being made for each token."""
    columns = bias.x.shape[1]
    for rows in row_chunks(bias.y.shape[2], width, columns):
        yield rows, slice(rows.start * columns, rows.stop * columns)


def _scores(a: Tensor, tokens: Tensor, bias: Factors, rows: slice, factor: float = 1.0) -> Tensor:
    """a tokensᵀ / √d + B, times a factor, for the tokens of some rows of the map: (h, n, T)."""
    base = (bias.y[:, :, rows] @ bias.x).add_(bias.row)  # (h, P, rows of the map, W)
    scores = _interpolate(bias.m_h, bias.m_w, base.flatten(2).mul_(factor))
    return scores.baddbmm_(a, tokens.mT, alpha=factor * a.shape[-1] ** -0.5)


def _interpolate(m_h: Tensor, m_w: Tensor, base: Tensor) -> Tensor:
    """(h, i*j, T) to (h, a*b, T) by matrices (a, i) and (b, j): two products of thin matrices."""
    heads, _, tokens = base.shape
    i, j = m_h.shape[1], m_w.shape[1]
    base = base.unflatten(1, (i, j)).flatten(0, 1)  # (h*i, j, T)
    base = torch.bmm(m_w.expand(len(base), -1, -1), base)  # (h*i, b, T)
    base = torch.bmm(m_h.expand(heads, -1, -1), base.view(heads, i, -1))  # (h, a, b*T)
    return base.view(heads, -1, tokens)


def _over_agents(scores: Tensor) -> Tensor:
    """Softmax over the agents of (h, n, T), in the same memory."""
    weights: Tensor = aten._softmax.out(scores, 1, False, out=scores)
    return weights


def _tokens_like(x: Tensor) -> Tensor:
    """Memory for (B, h, N, d) in which tokens come before heads, as linear layers take them."""
    batch, heads, tokens, d = x.shape
    return x.new_empty(batch, tokens, heads, d).transpose(1, 2)


def _set_product(out: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """out = scale * left right, for left (h, T, n) and right (h, n, d)."""
    out.baddbmm_(left, right, beta=0, alpha=scale)


def _add_product(out: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """out += scale * left right, for left (h, n, T) and right (h, T, d)."""
    out.baddbmm_(left, right, alpha=scale)
