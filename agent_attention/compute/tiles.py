"""Agent attention in tiles that stay in a CPU's cache, forward and backward.

A tile is some tokens of a head with all agents (FlashAttention's scheme, arXiv 2205.14135, with
matrix products as large as the cache allows). Nothing of the size agents x tokens exists at once,
and for the backward pass nothing of it is kept: the scores are computed again.

The bias is M K̂ᵀ (docs/performance.md), so that the scores are one product, of agents and tokens
with P more channels each: [a / √d, M] [k, K̂]ᵀ.

Shapes: agents (B, h, n, d) and tokens (B, h, N, d), strided as it comes; M (n, P), which has no
gradient, and K̂ (h, N, P); of a head, (n, d), (N, d) and (N, P).
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.products import linear

Gradients = tuple[Tensor | None, ...]
aten = torch.ops.aten
_LOG2_E = math.log2(math.e)  # torch takes less time for exp2 than for exp


def aggregate(a: Tensor, k: Tensor, v: Tensor, m: Tensor, base: Tensor) -> Tensor:
    """Agents attend to all tokens: softmax(a kᵀ / √d + M K̂ᵀ) v, (B, h, n, d)."""
    out: Tensor = _Aggregate.apply(a, k, v, m, base)
    return out


def broadcast(q: Tensor, a: Tensor, v_a: Tensor, m: Tensor, base: Tensor) -> Tensor:
    """Tokens attend to all agents: softmax(q aᵀ / √d + K̂ Mᵀ) v_a, (B, h, N, d)."""
    out: Tensor = _Broadcast.apply(a, q, v_a, m, base)
    return out


def broadcast_into(out: Tensor, q: Tensor, a: Tensor, v_a: Tensor, m: Tensor, base: Tensor) -> None:
    """Write what ``broadcast`` gives to ``out`` (B, h, N, d), which may be ``q`` itself."""
    for b, j in _heads(a):
        agents, values = _with_bias(a[b, j], m), v_a[b, j].contiguous()
        for part in _tiles(base, len(m)):
            weights = _over_agents(linear(_joined(q[b, j], base[j], part), agents))
            torch.mm(weights, values, out=out[b, j, part])


class _Aggregate(torch.autograd.Function):
    """Softmax over the tokens, of which no tile has all: sums are kept as they come in."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, k: Tensor, v: Tensor, m: Tensor, base: Tensor) -> Tensor:
        out, log_total = aggregate_forward(a, k, v, m, base)
        ctx.save_for_backward(a, k, v, m, base, out, log_total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        return aggregate_backward(grad, *ctx.saved_tensors, needed=ctx.needs_input_grad)


def aggregate_forward(
    a: Tensor, k: Tensor, v: Tensor, m: Tensor, base: Tensor
) -> tuple[Tensor, Tensor]:
    """What ``aggregate`` gives, and log2 of the sums of exp(scores) (B, h, n)."""
    out, log_total = _tokens_like(a), a.new_empty(a.shape[:3])
    for b, j in _heads(a):
        agents = _with_bias(a[b, j], m, _LOG2_E)
        log_total[b, j] = _aggregate_into(out[b, j], agents, k[b, j], v[b, j], base[j])
    return out, log_total


def aggregate_backward(
    grad: Tensor,
    a: Tensor,
    k: Tensor,
    v: Tensor,
    m: Tensor,
    base: Tensor,
    out: Tensor,
    log_total: Tensor,
    needed: tuple[bool, ...],
) -> Gradients:
    """Gradients of a, k, v, nothing and K̂, where they are needed."""
    sums = _ScoreGradients(a, k, m, base, needed)
    of_v = _tokens_like(v) if needed[2] else None
    less_mean, less_total = (grad * out).sum(-1).neg_(), log_total.neg()  # (B, h, n)
    with torch.autocast("cpu", enabled=False):  # as in the forward pass
        for b, j in _heads(a):
            agents, slopes = _with_bias(a[b, j], m, _LOG2_E), grad[b, j].contiguous()
            sums.begin(b, j)
            for part in _tiles(base, 2 * len(m)):
                scores = linear(_joined(k[b, j], base[j], part), agents, less_total[b, j])
                weights = scores.exp2_()
                if of_v is not None:
                    torch.mm(weights, slopes, out=of_v[b, j, part])
                slope = linear(v[b, j, part], slopes, less_mean[b, j])
                sums.add(part, slope.mul_(weights))
            sums.end()
    return sums.of_a, sums.of_tokens, of_v, None, sums.of_base


def _aggregate_into(out: Tensor, agents: Tensor, k: Tensor, v: Tensor, base: Tensor) -> Tensor:
    """Write the output (n, d) of a head; log2 of the sums of exp(scores) (n)."""
    largest = agents.new_full(agents.shape[:1], -torch.inf)  # score so far
    total = torch.zeros_like(largest)  # of exp(score - largest) so far
    values = out.new_zeros(out.shape[::-1])  # (d, n)
    for part in _tiles(base, len(agents)):
        scores = linear(_joined(k, base, part), agents)
        now = torch.maximum(largest, scores.amax(0))
        weights = scores.sub_(now).exp2_()
        shrink = largest.sub_(now).exp2_()
        largest = now
        total.mul_(shrink).add_(weights.sum(0))
        values.mul_(shrink).addmm_(v[part].t(), weights)
    out.copy_(values.div_(total).t())
    return largest.add_(total.log2_())


class _Broadcast(torch.autograd.Function):
    """Softmax over the agents, of which each tile has all."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, q: Tensor, v_a: Tensor, m: Tensor, base: Tensor) -> Tensor:
        ctx.save_for_backward(a, q, v_a, m, base)
        out = _tokens_like(q)
        broadcast_into(out, q, a, v_a, m, base)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        return broadcast_backward(grad, *ctx.saved_tensors, needed=ctx.needs_input_grad)


def broadcast_backward(
    grad: Tensor,
    a: Tensor,
    q: Tensor,
    v_a: Tensor,
    m: Tensor,
    base: Tensor,
    needed: tuple[bool, ...],
) -> Gradients:
    """Gradients of a, q, v_a, nothing and K̂, where they are needed."""
    sums = _ScoreGradients(a, q, m, base, needed)
    of_v = _tokens_like(v_a) if needed[2] else None
    with torch.autocast("cpu", enabled=False):  # as in the forward pass
        for b, j in _heads(a):
            agents, values = _with_bias(a[b, j], m), v_a[b, j].contiguous()
            of_values = torch.zeros_like(values.t())  # (d, n)
            sums.begin(b, j)
            for part in _tiles(base, 2 * len(m)):
                weights = _over_agents(linear(_joined(q[b, j], base[j], part), agents))
                slopes = grad[b, j, part]
                of_values.addmm_(slopes.t(), weights)
                slope = linear(slopes, values)
                aten._softmax_backward_data.out(slope, weights, 1, slope.dtype, grad_input=slope)
                sums.add(part, slope)
            sums.end()
            if of_v is not None:
                of_v[b, j] = of_values.t()
    return sums.of_a, sums.of_tokens, of_v, None, sums.of_base


class _ScoreGradients:
    """Gradients of what the scores are made of, where needed, head by head and tile by tile."""

    def __init__(
        self, a: Tensor, tokens: Tensor, m: Tensor, base: Tensor, needed: tuple[bool, ...]
    ) -> None:
        self.a, self.tokens, self.m = a, tokens, m
        self.of_a = _tokens_like(a) if needed[0] else None
        self.of_tokens = _tokens_like(tokens) if needed[1] else None
        self.of_base = torch.zeros_like(base) if needed[4] else None

    def begin(self, b: int, j: int) -> None:
        """Tiles are those of the j-th head of the b-th sample from now on."""
        self.head = b, j
        self.agents = _with_bias(self.a[b, j], self.m).t()
        self.of_agents = self.a.new_zeros(self.a.shape[:1:-1])  # (d, n)

    def add(self, part: slice, slope: Tensor) -> None:
        """Take in the gradient (T, n) of the scores of a tile."""
        (b, j), d = self.head, self.a.shape[-1]
        self.of_agents.addmm_(self.tokens[b, j, part].t(), slope)
        of_joined = linear(slope, self.agents)  # (T, d + P)
        if self.of_tokens is not None:
            self.of_tokens[b, j, part] = of_joined[:, :d]
        if self.of_base is not None:
            self.of_base[j, part] += of_joined[:, d:]

    def end(self) -> None:
        """The tiles of a head are all done."""
        if self.of_a is not None:
            self.of_a[self.head] = self.of_agents.t() * self.a.shape[-1] ** -0.5


def _heads(a: Tensor) -> Iterator[tuple[int, int]]:
    return ((b, j) for b in range(a.shape[0]) for j in range(a.shape[1]))


def _tiles(base: Tensor, width: int) -> Iterator[slice]:
    """Some tokens at a time, ``width`` numbers being made for each of them."""
    return row_chunks(base.shape[-2], width)


def _with_bias(a: Tensor, m: Tensor, factor: float = 1.0) -> Tensor:
    """[a / √d, M] (n, d + P) of a head, times a factor."""
    return torch.cat([a * (factor * a.shape[-1] ** -0.5), m * factor], -1)


def _joined(tokens: Tensor, base: Tensor, part: slice) -> Tensor:
    """[k, K̂] (T, d + P) of some tokens of a head."""
    return torch.cat([tokens[part], base[part]], -1)


def _over_agents(scores: Tensor) -> Tensor:
    """Softmax over the agents of (T, n), in the same memory."""
    weights: Tensor = aten._softmax.out(scores, 1, False, out=scores)
    return weights


def _tokens_like(x: Tensor) -> Tensor:
    """Memory for (B, h, N, d) in which tokens come before heads, as linear layers take them."""
    batch, heads, tokens, d = x.shape
    return x.new_empty(batch, tokens, heads, d).transpose(1, 2)
