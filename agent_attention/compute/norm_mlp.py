"""Half of a block, ``x + mlp(norm(x))``, a chunk of tokens at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import define, is_exact, may_replace, settings
from agent_attention.compute.products import WeightGradients, add_linear, linear, linear_gelu
from agent_attention.layers import DropPath, Mlp

aten = torch.ops.aten
define(Mlp)
define(DropPath, "factor")


def add_norm_mlp(norm: nn.Module, mlp: nn.Module, drop_path: nn.Module, x: Tensor) -> Tensor | None:
    """``x + drop_path(mlp(norm(x)))`` of tokens (B, N, C); None where modules have to run.

    For the backward pass ``x`` is kept, and the hidden layer unless it is large: computing it again
    costs one more product.
    """
    if not can_chunk(norm, mlp, x) or not is_exact(drop_path, DropPath):
        return None
    assert isinstance(mlp, Mlp) and isinstance(norm, nn.LayerNorm)
    assert isinstance(drop_path, DropPath)
    factor = drop_path.factor(x)
    if factor is not None:  # for each row
        factor = factor.expand(-1, x.shape[1], -1).flatten(0, 1)
    keep = torch.is_grad_enabled() and x.shape[:2].numel() * len(mlp.fc1.weight) <= settings().kept
    out: Tensor = _AddNormMlp.apply(x.flatten(0, 1), factor, norm.eps, keep, *_weights(norm, mlp))
    return out.unflatten(0, x.shape[:2])


def add_norm_mlp_(norm: nn.LayerNorm, mlp: Mlp, x: Tensor) -> Tensor:
    """``x + mlp(norm(x))`` of tokens (B, N, C), in their memory or new; without gradients."""
    if not can_chunk(norm, mlp, x):
        return x.add_(mlp(norm(x)))
    gamma, beta, w1, b1, w2, b2 = _weights(norm, mlp)
    flat = x.view(-1, x.shape[-1])
    parts = list(row_chunks(len(flat), len(w1)))
    for part in parts:
        normed = F.layer_norm(flat[part], gamma.shape, gamma, beta, norm.eps)
        hidden = linear_gelu(normed, w1, b1)
        if len(parts) == 1:
            return add_linear(hidden, w2, b2, to=flat).view(x.shape)
        flat[part].add_(linear(hidden, w2, b2))
    return x


def can_chunk(norm: nn.Module, mlp: nn.Module, x: Tensor) -> bool:
    """Whether the two are a plain LayerNorm and a plain ``Mlp`` that drops nothing."""
    if not may_replace(x, (norm, nn.LayerNorm), (mlp, Mlp)):
        return False
    assert isinstance(mlp, Mlp) and isinstance(norm, nn.LayerNorm)
    layers = (mlp.fc1, nn.Linear), (mlp.act, nn.GELU), (mlp.fc2, nn.Linear), (mlp.drop, nn.Dropout)
    if not all(is_exact(*layer) for layer in layers) or mlp.act.approximate != "none":
        return False
    drops = mlp.drop.training and mlp.drop.p > 0
    return not drops and all(weight is not None for weight in _weights(norm, mlp))


def _weights(norm: nn.LayerNorm, mlp: Mlp) -> tuple[Tensor, ...]:
    return norm.weight, norm.bias, mlp.fc1.weight, mlp.fc1.bias, mlp.fc2.weight, mlp.fc2.bias


class _AddNormMlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, factor: Tensor | None, eps: float, keep: bool, *weights: Tensor
    ) -> Tensor:
        gamma, beta, w1, b1, w2, b2 = weights
        out, kept = x.new_empty(x.shape), []
        for part in row_chunks(len(x), len(w1)):
            normed = F.layer_norm(x[part], gamma.shape, gamma, beta, eps)
            if keep:
                kept.append(linear(normed, w1, b1))
            hidden = F.gelu(kept[-1]) if keep else linear_gelu(normed, w1, b1)
            fed = linear(hidden, w2, b2)
            torch.add(x[part], fed if factor is None else fed.mul_(factor[part]), out=out[part])
        ctx.save_for_backward(x, factor, *weights, *kept)
        ctx.eps = eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            grad_x, *grads = _backward(grad, ctx.saved_tensors, ctx.eps)
        return grad_x, None, None, None, *grads


def _backward(grad: Tensor, saved: Sequence[Any], eps: float) -> list[Tensor]:
    """Gradients of the tokens (N, C) and of the six weights."""
    x, factor, gamma, beta, w1, b1, w2, b2, *kept = saved
    sizes = [len(hidden) for hidden in kept]
    sizes = sizes or [part.stop - part.start for part in row_chunks(len(x), 2 * len(w1))]
    grads = WeightGradients(gamma, beta, w1, b1, w2, b2)
    of_x = x.new_empty(x.shape)
    parts = [each.split(sizes) for each in (x, grad, of_x)]
    for i, (x_part, grad_part, out) in enumerate(zip(*parts, strict=True)):
        normed, mean, rstd = torch.native_layer_norm(x_part, gamma.shape, gamma, beta, eps)
        hidden = kept[i] if kept else linear(normed, w1, b1)
        slope = grad_part if factor is None else grad_part * factor.split(sizes)[i]
        grads.add_product(4, slope, F.gelu(hidden))
        slope = linear(slope, w2.t())
        aten.gelu_backward.grad_input(slope, hidden, grad_input=slope)
        grads.add_product(2, slope, normed)
        slope, of_gamma, of_beta = aten.native_layer_norm_backward(
            linear(slope, w1.t()), x_part, gamma.shape, mean, rstd, gamma, beta, [True, True, True]
        )
        torch.add(slope, grad_part, out=out)
        grads.add(0, of_gamma)
        grads.add(1, of_beta)
    return [of_x, *grads.all()]
