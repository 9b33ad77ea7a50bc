"""Agent attention of small maps on a CPU: few operations, whose scores are kept for backward.

A small map's scores fit into a CPU's cache, so that tiles would only be more operations, and to
compute scores again takes longer than to read them. Each step is one operation for all heads, on
the memory as it lies: the heads of a sample of (B, N, C) are a batch of strided matrices, which
``matmul`` would copy for more than one sample.

Shapes: queries (B, h, Q, d), keys and values (B, h, K, d). M (n, P), without a gradient, and K̂
(h, P, N) are the factors of the bias (h, Q, K), which is M K̂, or its transpose where the tokens
are first, the queries.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agent_attention.compute.bias import AgentBias

aten = torch.ops.aten


def attend_kept(q: Tensor, k: Tensor, v: Tensor, bias: AgentBias) -> Tensor:
    """softmax(q kᵀ / √d + B) v: (B, h, Q, d)."""
    leaves = (q, k, v, *bias[:3])
    if not torch.is_grad_enabled() or not any(x.requires_grad for x in leaves):
        return attend_with(q, k, v, bias.product().to(q.dtype))[0]
    factors = bias.factors().to(q.dtype)
    out: Tensor = _Kept.apply(q, k, v, factors.by_agent(), factors.by_token(), bias.tokens_first)
    return out


def attend_with(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(q kᵀ / √d + bias) v (B, h, Q, d), and the softmax (B, h, Q, K); without gradients."""
    weights = q.new_empty(*q.shape[:3], k.shape[2])
    for some, queries, keys in zip(weights, q, k, strict=True):
        torch.baddbmm(bias, queries, keys.mT, alpha=q.shape[-1] ** -0.5, out=some)
    aten._softmax.out(weights, -1, False, out=weights)
    return _products(weights, v), weights


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, m: Tensor, base: Tensor, first: bool
    ) -> Tensor:
        bias = base.mT @ m.t() if first else m @ base
        out, weights = attend_with(q, k, v, bias)
        ctx.save_for_backward(q, k, v, m, weights)
        ctx.first = first
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, m, weights = ctx.saved_tensors
        scale, of = q.shape[-1] ** -0.5, ctx.needs_input_grad
        slope = torch.empty_like(weights)
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            for some, grads, values in zip(slope, grad, v, strict=True):
                torch.bmm(grads, values.mT, out=some)
            aten._softmax_backward_data.out(slope, weights, -1, slope.dtype, grad_input=slope)
            of_v = _products(weights.mT, grad) if of[2] else None
            of_q = _products(slope, k, scale) if of[0] else None
            of_k = _products(slope.mT, q, scale) if of[1] else None
            of_base = _of_base(slope, m, ctx.first) if of[4] else None
        return of_q, of_k, of_v, None, of_base, None


def _of_base(slope: Tensor, m: Tensor, first: bool) -> Tensor:
    """The gradient of K̂ (h, P, N), from that of the scores."""
    of_bias = slope[0] if len(slope) == 1 else slope.sum(0)
    return m.t() @ (of_bias.mT if first else of_bias)


def _products(left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
    """scale * left right, (B, h, T, K) times (B, h, K, d), heads before tokens in memory.

    To write tokens first torch would take one product a head, for each of which threads wake.
    """
    out = right.new_empty(*left.shape[:3], right.shape[3])
    for some, x, y in zip(out, left, right, strict=True):
        some.baddbmm_(x, y, beta=0, alpha=scale)
    return out
