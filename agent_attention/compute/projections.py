"""Linear layers over all tokens of a map, with the memory that they read and write in mind."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.compute.chunks import slabs, wants_slabs
from agent_attention.layers import is_plain


def project(
    linears: Sequence[nn.Module],
    x: Tensor,
    dim: int,
    norm: nn.Module | None = None,
    spare: list[Tensor] | None = None,
) -> list[Tensor]:
    """What linear layers make of tokens, in parts of ``dim`` channels.

    Each part has memory of its own: convolutions and pooling would first copy one that lies
    between others.

    Args:
        linears: layers from C to multiples of ``dim`` channels.
        x: tokens (B, N, C).
        dim: channels of a part.
        norm: layer that the tokens go through first; a slab of them at a time, where that pays and
            there are no gradients.
        spare: contiguous tensors (B, N, dim) that may then be overwritten; taken from its end.

    Returns:
        Parts (B, N, dim), those of the first layer first.
    """
    if norm is not None and not _in_slabs([*linears, norm], x):
        x, norm = norm(x), None
    if not isinstance(norm, nn.LayerNorm):
        return [part for linear in linears for part in _parts(linear, x, dim)]
    weights = [each for linear in linears for each in _weights(linear, dim)]
    outs = [spare.pop() if spare else x.new_empty(*x.shape[:2], dim) for _ in weights]
    rows, *filled = (each.flatten(0, 1) for each in (x, *outs))
    for part in slabs(len(rows), width=dim * len(outs)):
        normed = F.layer_norm(rows[part], norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        for (weight, bias), out in zip(weights, filled, strict=True):
            _linear_into(normed, weight, bias, out[part])
    return outs


def project_into(linear: nn.Module, x: Tensor, memory: Tensor) -> Tensor:
    """``linear(x)`` of tokens (B, N, C), in memory of the same shape where that is possible."""
    if not memory.is_contiguous() or not _in_slabs([linear], x):
        return linear(x)
    ((weight, bias),) = _weights(linear, memory.shape[-1])
    _linear_into(x.flatten(0, 1), weight, bias, memory.flatten(0, 1))
    return memory


def _in_slabs(layers: Sequence[nn.Module], x: Tensor) -> bool:
    return not torch.is_grad_enabled() and wants_slabs(x) and all(map(is_plain, layers))


def _parts(linear: nn.Module, x: Tensor, dim: int) -> Sequence[Tensor]:
    if not is_plain(linear):
        return linear(x).split(dim, -1)
    return [F.linear(x, weight, bias) for weight, bias in _weights(linear, dim)]


def _weights(linear: nn.Module, dim: int) -> list[tuple[Tensor, Tensor | None]]:
    """Weight (dim, C) and bias (dim) of each part."""
    assert isinstance(linear, nn.Linear)
    weights = linear.weight.split(dim)
    biases = [None] * len(weights) if linear.bias is None else linear.bias.split(dim)
    return list(zip(weights, biases, strict=True))


def _linear_into(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)
