"""The linear layers around a mixer, with the LayerNorm and the sum around them, in training.

Of what stands between, nothing as large as the map is made but what the mixer takes: tokens are
normalised, projected, and for the backward pass normalised again, a chunk at a time. A block adds
its input twice, so that the gradient of that sum is joined here as well.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import may_replace
from agent_attention.compute.products import add_linear, linear
from agent_attention.layers import DropPath

aten = torch.ops.aten
_PROJECTIONS = 3  # queries, keys and values


def can_project(
    x: Tensor,
    norm: nn.Module,
    layers: Sequence[nn.Module],
    mixing: tuple[nn.Module, nn.Module, nn.Module],
    drop_path: nn.Module,
) -> bool:
    """Whether the functions below may compute what a block does around a mixer, with tokens x.

    Args:
        x: tokens (B, N, C).
        norm: a block's first.
        layers: the mixer's projections.
        mixing: the mixer, its projection of the output and the dropout after it.
        drop_path: the block's.
    """
    mixer, proj, drop = mixing
    parts = [(mixer, type(mixer)), (proj, nn.Linear), (drop, nn.Dropout), (drop_path, DropPath)]
    parts += [(norm, nn.LayerNorm), *((layer, nn.Linear) for layer in layers)]
    if not may_replace(x, *parts) or (drop.training and drop.p > 0):
        return False
    return norm.weight is not None and norm.bias is not None


def norm_project(
    norm: nn.LayerNorm, layers: Sequence[nn.Linear], x: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``x`` (B, N, C) itself, for what it is added to, and queries, keys and values of norm(x).

    Args:
        norm: over the channels.
        layers: whose outputs, side by side, are the queries, keys and values.
        x: tokens (B, N, C).

    Returns:
        ``x``, and three of (B, N, C), each contiguous.
    """
    weights = norm.weight, norm.bias, *_weights(layers)
    rows = _NormProject.apply(x.flatten(0, 1), norm.eps, *weights)
    return tuple(each.unflatten(0, x.shape[:2]) for each in rows)  # type: ignore[return-value]


def add_projected(x: Tensor, layer: nn.Linear, factor: Tensor | None, mixed: Tensor) -> Tensor:
    """``x + factor * layer(mixed)`` of tokens (B, N, C), a factor (B, 1, 1) for each sample."""
    if factor is not None:  # for each row
        factor = factor.expand(-1, x.shape[1], -1).flatten(0, 1)
    rows = (each.flatten(0, 1) for each in (x, mixed))
    out: Tensor = _AddLinear.apply(*rows, factor, layer.weight, layer.bias)
    return out.unflatten(0, x.shape[:2])


class _NormProject(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, eps: float, gamma: Tensor, beta: Tensor, *weights: Tensor | None
    ) -> tuple[Tensor, ...]:
        outs = [x.new_empty(x.shape) for _ in range(_PROJECTIONS)]
        for part in row_chunks(len(x), _PROJECTIONS * x.shape[1]):
            normed = F.layer_norm(x[part], gamma.shape, gamma, beta, eps)
            for (weight, bias), out in zip(_parts(weights), outs, strict=True):
                if bias is None:
                    torch.mm(normed, weight.t(), out=out[part])
                else:
                    torch.addmm(bias, normed, weight.t(), out=out[part])
        ctx.save_for_backward(x, gamma, beta, *weights)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return (x, *outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            of_x, *of_weights = _backward(grads, ctx.saved_tensors, ctx.eps)
        return of_x, None, *of_weights


def _backward(
    grads: Sequence[Tensor | None], saved: Sequence[Any], eps: float
) -> list[Tensor | None]:
    """Gradients of the tokens (N, C), of the norm's weights and of those of the layers."""
    x, gamma, beta, *weights = saved
    of_x, of_gamma, of_beta = x.new_empty(x.shape), torch.zeros_like(gamma), torch.zeros_like(beta)
    of_weights = [None if each is None else torch.zeros_like(each) for each in weights]
    layers = list(zip(grads[1:], _parts(weights), _parts(of_weights), strict=True))
    for part in row_chunks(len(x), (_PROJECTIONS + 2) * x.shape[1]):
        normed, *moments = torch.native_layer_norm(x[part], gamma.shape, gamma, beta, eps)
        slope = torch.zeros_like(normed)
        for grad, (weight, _), (of_weight, of_bias) in layers:
            if grad is None:
                continue
            slope.addmm_(grad[part], weight)
            of_weight.addmm_(grad[part].t(), normed)
            if of_bias is not None:
                of_bias.add_(grad[part].sum(0))
        slope, *of_norm = aten.native_layer_norm_backward(
            slope, x[part], gamma.shape, *moments, gamma, beta, [True, True, True]
        )
        of_gamma.add_(of_norm[0])
        of_beta.add_(of_norm[1])
        if grads[0] is None:
            of_x[part] = slope
        else:
            torch.add(slope, grads[0][part], out=of_x[part])
    return [of_x, of_gamma, of_beta, *of_weights]


def parts_of(layers: Sequence[nn.Linear]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Weight (C, C) and bias of each projection, of layers that may have several of them."""
    return _parts(_weights(layers))


def _weights(layers: Sequence[nn.Linear]) -> list[Tensor | None]:
    return [each for layer in layers for each in (layer.weight, layer.bias)]


def _parts(weights: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        count = weight.shape[0] // weight.shape[1]
        biases = [None] * count if bias is None else bias.chunk(count)
        yield from zip(weight.chunk(count), biases, strict=True)


class _AddLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, to: Tensor, x: Tensor, factor: Tensor | None, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, factor, weight)
        ctx.has_bias = bias is not None
        if factor is None:
            return add_linear(x, weight, bias, to)
        return torch.addcmul(to, linear(x, weight, bias), factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, factor, weight = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            slope = grad if factor is None else grad * factor
            of_bias = slope.sum(0) if ctx.has_bias else None
            return grad, slope @ weight, None, slope.t() @ x, of_bias
