"""Attention in tiles as an operator, for graphs of ``torch.compile`` on a CPU.

The compiled graph runs the tiles that the model runs without it. Shapes: see ``attend``; y and row
are those of ``Factors``, numbers are (W, a_h, a_w, whether the queries are the tokens).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from agent_attention.compute.bias import AgentBias, Factors, columns_and_one, interpolation
from agent_attention.compute.tiles import (
    aggregate_backward,
    aggregate_forward,
    broadcast_backward,
    broadcast_into,
)

_ALL = (True,) * 6  # gradients are needed


def attend_compiled(q: Tensor, k: Tensor, v: Tensor, bias: AgentBias) -> Tensor:
    """softmax(q kᵀ / √d + B) v: (B, h, Q, d)."""
    numbers = (bias.size[1], *bias.agent_shape, int(bias.tokens_first))
    return _attend(q, k, v, *bias.resized(), numbers)[0].transpose(1, 2)


@torch.library.custom_op("agent_attention::attend", mutates_args=())
def _attend(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, row: Tensor, numbers: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The result as (B, Q, h, d), and log2 of sums that the gradient needs."""
    factors, (out, log_total) = _factors(y, row, numbers), _results(q, numbers)
    if numbers[3]:
        broadcast_into(out.transpose(1, 2), q, k, v, factors)
    else:
        found, log_total = aggregate_forward(q, k, v, factors)
        out.copy_(found.transpose(1, 2))
    return out, log_total


@_attend.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, row: Tensor, numbers: Sequence[int]
) -> tuple[Tensor, Tensor]:
    return _results(q, numbers)


@torch.library.custom_op("agent_attention::attend_gradients", mutates_args=())
def _gradients(grad: Tensor, tensors: Sequence[Tensor], numbers: Sequence[int]) -> list[Tensor]:
    """Gradients of q, k and v as (B, N, h, d), of y and of row."""
    q, k, v, y, row, out, log_total = tensors
    factors, grad = _factors(y, row, numbers), grad.transpose(1, 2)
    if numbers[3]:
        of_k, of_q, of_v, _, *of_bias = broadcast_backward(grad, _ALL, k, q, v, factors)
    else:
        saved = out.transpose(1, 2), log_total
        of_q, of_k, of_v, _, *of_bias = aggregate_backward(grad, _ALL, q, k, v, factors, *saved)
    found = [of.transpose(1, 2).contiguous() for of in (of_q, of_k, of_v) if of is not None]
    return [*found, *(of for of in of_bias if of is not None)]


@_gradients.register_fake
def _(grad: Tensor, tensors: Sequence[Tensor], numbers: Sequence[int]) -> list[Tensor]:
    of_qkv = (x.new_empty((x.shape[0], x.shape[2], *x.shape[1::2])) for x in tensors[:3])
    return [*of_qkv, *(x.new_empty(x.shape) for x in tensors[3:5])]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.numbers = inputs
    ctx.save_for_backward(*tensors, *output)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *of_qkv, of_y, of_row = _gradients(grad, ctx.saved_tensors, ctx.numbers)
    return *(of.transpose(1, 2) for of in of_qkv), of_y, of_row, None


_attend.register_autograd(_backward, setup_context=_keep)


def _factors(y: Tensor, row: Tensor, numbers: Sequence[int]) -> Factors:
    width, a_h, a_w, _ = numbers
    p, kind = math.isqrt(y.shape[1]), (y.dtype, y.device)
    m_h, m_w = (interpolation(p, a, *kind) for a in (a_h, a_w))
    return Factors(m_h, m_w, columns_and_one(y.shape[-1] - 1, width, *kind), y, row)


def _results(q: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Memory for the two."""
    batch, heads, count, d = q.shape
    sums = 0 if numbers[3] else count
    return q.new_empty((batch, count, heads, d)), q.new_empty((batch, heads, sums, 1))
