"""Numbers that stay finite: the precision that sums need, and scales that cancel."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(*tensors: Tensor) -> list[Tensor]:
    """Tensors of half precision as float32, others as they are."""
    return [x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for x in tensors]


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which products are computed in the type of their tensors."""
    if x.is_meta:  # shapes without numbers, for which torch knows no autocast
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def bounded(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` (B, ...) with numbers from -1 to 1, and what each sample was divided by, at least 1.

    The divisor (B, 1, ...) has no gradient: where it cancels, none is lost.
    """
    axes = tuple(range(1, x.dim()))
    scale = x.detach().abs().amax(axes, keepdim=True).clamp(min=1)
    return x / scale, scale


def exp_to_one(x: Tensor, dim: int, floor: float | None = None) -> Tensor:
    """exp(x - max x) along an axis: the largest gives 1; a floor keeps the others above exp(floor).

    A common factor of all weights, as exp(max x) is, cancels in an average.
    """
    x = x - x.detach().amax(dim, keepdim=True)
    return (x if floor is None else x.clamp(min=floor)).exp()
