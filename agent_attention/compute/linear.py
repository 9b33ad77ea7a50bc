"""Linear layers over all tokens of a map, with the memory that they read and write in mind."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import may_replace

Part = tuple[Tensor, Tensor | None]  # weight and bias of a part of a linear layer's output


def norm_linear(norm: nn.Module, linear: nn.Module, x: Tensor) -> Tensor:
    """``linear(norm(x))`` of tokens (B, N, C); a chunk of them at a time where no gradient is."""
    exact = may_replace(x, (norm, nn.LayerNorm), (linear, nn.Linear))
    if torch.is_grad_enabled() or not exact:
        out: Tensor = linear(norm(x))
        return out
    assert isinstance(norm, nn.LayerNorm) and isinstance(linear, nn.Linear)
    out = x.new_empty(*x.shape[:-1], len(linear.weight))
    fill_with_norm_linear([out], norm, [(linear.weight, linear.bias)], x)
    return out


def fill_with_norm_linear(
    outs: Sequence[Tensor], norm: nn.LayerNorm, parts: Sequence[Part], x: Tensor
) -> None:
    """Write each part of what linear layers make of ``norm(x)`` to contiguous memory."""
    rows, *filled = (each.flatten(0, 1) for each in (x, *outs))
    for some in row_chunks(len(rows), sum(out.shape[-1] for out in outs)):
        normed = F.layer_norm(rows[some], norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        for part, out in zip(parts, filled, strict=True):
            fill_with_linear(out[some], part, normed)


def fill_with_linear(out: Tensor, part: Part, x: Tensor) -> None:
    """Write a linear layer's output for rows (T, C) to contiguous memory."""
    weight, bias = part
    if bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)


def weight_parts(linear: nn.Linear, parts: int) -> list[Part]:
    """Weight and bias of each part of a linear layer's output."""
    biases = [None] * parts if linear.bias is None else linear.bias.chunk(parts)
    return list(zip(linear.weight.chunk(parts), biases, strict=True))
