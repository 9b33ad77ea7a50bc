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


def attend_compiled(q: Tensor, k: Tensor, v: Tensor, bias: AgentBias) -> Tensor:
    """softmax(q kᵀ / √d + B) v: (B, h, Q, d)."""
    y, row = (x.contiguous() for x in bias.resized())
    numbers = (bias.size[1], *bias.agent_shape, int(bias.tokens_first))
    return _attend(q, k, v, y, row, numbers)[0].transpose(1, 2)


@torch.library.custom_op("agent_attention::attend", mutates_args=())
def _attend(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, row: Tensor, numbers: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The result as (B, Q, h, d), and log2 of sums that the gradient needs."""
    bias = _factors(y, row, numbers)
    out, log_total = _results(q, numbers)
    for i, sample in enumerate(out.transpose(1, 2)):
        if numbers[3]:
            broadcast_into(sample, q[i], k[i], v[i], bias)
        else:
            found, total = aggregate_forward(q[i], k[i], v[i], bias)
            sample.copy_(found)
            log_total[i] = total
    return out, log_total


@_attend.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, y: Tensor, row: Tensor, numbers: Sequence[int]
) -> tuple[Tensor, Tensor]:
    return _results(q, numbers)


@torch.library.custom_op("agent_attention::attend_gradients", mutates_args=())
def _gradients(
    grad: Tensor,
    tensors: Sequence[Tensor],
    numbers: Sequence[int],
) -> list[Tensor]:
    """Gradients of q, k and v as (B, N, h, d), of y and of row."""
    q, k, v, y, row, out, log_total = tensors
    bias, found = _factors(y, row, numbers), _like(tensors)
    for of_table in found[3:]:
        of_table.zero_()
    for i, slope in enumerate(grad.transpose(1, 2)):
        if numbers[3]:
            of_k, of_q, of_v, _, of_y, of_row = broadcast_backward(slope, k[i], q[i], v[i], bias)
        else:
            saved = out[i].transpose(0, 1), log_total[i]
            of_q, of_k, of_v, _, of_y, of_row = aggregate_backward(
                slope, q[i], k[i], v[i], bias, *saved
            )
        for j, of in enumerate((of_q, of_k, of_v, of_y, of_row)):
            assert of is not None
            if j < 3:
                found[j][i] = of.transpose(0, 1)
            else:
                found[j] += of
    return found


@_gradients.register_fake
def _(grad: Tensor, tensors: Sequence[Tensor], numbers: Sequence[int]) -> list[Tensor]:
    return _like(tensors)


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
    sums = (0, 0) if numbers[3] else (count, 1)
    return q.new_empty((batch, count, heads, d)), q.new_empty((batch, heads, *sums))


def _like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Memory for gradients."""
    of_qkv = (x.new_empty((x.shape[0], x.shape[2], *x.shape[1::2])) for x in tensors[:3])
    return [*of_qkv, *(x.new_empty(x.shape) for x in tensors[3:5])]
