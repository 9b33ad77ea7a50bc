"""The MLP of a block with the LayerNorm before it, a chunk of tokens at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import define, is_exact, may_replace, settings
from agent_attention.compute.products import add_linear, linear, linear_gelu
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


class _NormMlp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, keep: bool, *weights: Tensor) -> Tensor:
        gamma, beta, w1, b1, w2, b2 = weights
        outs, kept = [], []
        for part in row_chunks(len(x), len(w1)):
            normed = F.layer_norm(x[part], gamma.shape, gamma, beta, eps)
            if keep:
                kept.append(linear(normed, w1, b1))
            hidden = F.gelu(kept[-1]) if keep else linear_gelu(normed, w1, b1)
            outs.append(linear(hidden, w2, b2))
        ctx.save_for_backward(x, *weights, *kept)
        ctx.eps = eps
        return _join(outs, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            grad_x, *grads = _backward(grad, ctx.saved_tensors, ctx.eps)
        return grad_x, None, None, *grads


def _backward(grad: Tensor, saved: Sequence[Any], eps: float) -> list[Tensor]:
    """Gradients of the tokens (N, C) and of the six weights."""
    x, gamma, beta, w1, b1, w2, b2, *kept = saved
    sizes = [len(hidden) for hidden in kept]
    sizes = sizes or [part.stop - part.start for part in row_chunks(len(x), 2 * len(w1))]
    grads = _Sums(gamma, beta, w1, b1, w2, b2)
    of_x = []
    chunks = zip(x.split(sizes), grad.split(sizes), kept or [None] * len(sizes), strict=True)
    for x_part, slope, hidden in chunks:
        normed, mean, rstd = torch.native_layer_norm(x_part, gamma.shape, gamma, beta, eps)
        if hidden is None:
            hidden = linear(normed, w1, b1)
        grads.add_product(4, slope, F.gelu(hidden))
        slope = linear(slope, w2.t())
        aten.gelu_backward.grad_input(slope, hidden, grad_input=slope)
        grads.add_product(2, slope, normed)
        slope, of_gamma, of_beta = aten.native_layer_norm_backward(
            linear(slope, w1.t()), x_part, gamma.shape, mean, rstd, gamma, beta, [True, True, True]
        )
        of_x.append(slope)
        grads.add(0, of_gamma)
        grads.add(1, of_beta)
    return [_join(of_x, x), *grads.all()]


class _Sums:
    """Gradients of weights, from those of chunk after chunk; the first is taken as it is."""

    def __init__(self, *weights: Tensor) -> None:
        self.weights = weights
        self.sums: list[Tensor | None] = [None] * len(weights)

    def add(self, i: int, grad: Tensor) -> None:
        """Add to the gradient of the i-th weight."""
        total = self.sums[i]
        self.sums[i] = grad if total is None else total.add_(grad)

    def add_product(self, i: int, slope: Tensor, x: Tensor) -> None:
        """Add to those of a weight (D, C) and the bias after it, of slopes (T, D) and x (T, C)."""
        total = self.sums[i]
        self.sums[i] = slope.t() @ x if total is None else total.addmm_(slope.t(), x)
        self.add(i + 1, slope.sum(0))

    def all(self) -> list[Tensor]:
        """Zeros where there was no chunk."""
        pairs = zip(self.sums, self.weights, strict=True)
        return [torch.zeros_like(w) if total is None else total for total, w in pairs]


def _join(chunks: list[Tensor], like: Tensor) -> Tensor:
    """Rows (T, C) of all chunks, of which there may be none."""
    return chunks[0] if len(chunks) == 1 else torch.cat([like[:0], *chunks])
