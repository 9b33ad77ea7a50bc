"""The MLP of a block with the LayerNorm before it, a chunk of tokens at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import define, is_exact, may_replace, settings
from agent_attention.layers import Mlp

aten = torch.ops.aten
define(Mlp)


def norm_mlp(norm: nn.Module, mlp: nn.Module, x: Tensor) -> Tensor:
    """``mlp(norm(x))`` of tokens (B, N, C).

    In chunks on a CPU (see ``chunks``). For the backward pass ``x`` is then kept, and the hidden
    layer unless it is large: computing it again costs one more product.
    """
    if not can_chunk(norm, mlp, x):
        out: Tensor = mlp(norm(x))
        return out
    assert isinstance(mlp, Mlp) and isinstance(norm, nn.LayerNorm)
    keep = torch.is_grad_enabled() and x.shape[:2].numel() * len(mlp.fc1.weight) <= settings().kept
    out = _NormMlp.apply(x.flatten(0, 1), norm.eps, keep, *_weights(norm, mlp))
    return out.unflatten(0, x.shape[:2])


def add_norm_mlp_(norm: nn.LayerNorm, mlp: Mlp, x: Tensor) -> Tensor:
    """``x + mlp(norm(x))`` of tokens (B, N, C), written to their memory; without gradients."""
    if not can_chunk(norm, mlp, x):
        return x.add_(mlp(norm(x)))
    gamma, beta, w1, b1, w2, b2 = _weights(norm, mlp)
    flat = x.view(-1, x.shape[-1])
    for part in row_chunks(len(flat), len(w1)):
        normed = F.layer_norm(flat[part], gamma.shape, gamma, beta, norm.eps)
        hidden = F.gelu(torch.addmm(b1, normed, w1.t()))
        flat[part].add_(torch.addmm(b2, hidden, w2.t()))
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


class _NormMlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, keep: bool, *weights: Tensor) -> Tensor:
        gamma, beta, w1, b1, w2, b2 = weights
        out = torch.empty(len(x), len(w2), dtype=x.dtype)
        kept = torch.empty(len(x), len(w1), dtype=x.dtype) if keep else None
        for part in row_chunks(len(x), len(w1)):
            normed = F.layer_norm(x[part], gamma.shape, gamma, beta, eps)
            place = None if kept is None else kept[part]
            hidden = torch.addmm(b1, normed, w1.t(), out=place)
            torch.addmm(b2, F.gelu(hidden), w2.t(), out=out[part])
        ctx.save_for_backward(x, *weights, kept)
        ctx.eps = eps
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            grad_x, *grads = _backward(grad, ctx.saved_tensors, ctx.eps)
        return grad_x, None, None, *grads


def _backward(grad: Tensor, saved: Sequence[Any], eps: float) -> list[Tensor]:
    """Gradients of the tokens (N, C) and of the six weights."""
    x, gamma, beta, w1, b1, w2, b2, kept = saved
    grads = list(map(torch.zeros_like, (gamma, beta, w1, b1, w2, b2)))
    grad_x = torch.empty_like(x)
    grad_gamma, grad_beta, grad_w1, grad_b1, grad_w2, grad_b2 = grads
    for part in row_chunks(len(x), 2 * len(w1)):
        normed, mean, rstd = torch.native_layer_norm(x[part], gamma.shape, gamma, beta, eps)
        hidden = F.linear(normed, w1, b1) if kept is None else kept[part]
        grad_w2.addmm_(grad[part].t(), F.gelu(hidden))
        grad_b2.add_(grad[part].sum(0))
        slope = grad[part] @ w2
        aten.gelu_backward.grad_input(slope, hidden, grad_input=slope)
        grad_w1.addmm_(slope.t(), normed)
        grad_b1.add_(slope.sum(0))
        grad_x[part], of_gamma, of_beta = aten.native_layer_norm_backward(
            slope @ w1, x[part], gamma.shape, mean, rstd, gamma, beta, [True, True, True]
        )
        grad_gamma.add_(of_gamma)
        grad_beta.add_(of_beta)
    return [grad_x, *grads]
