"""Numbers that stay finite: the precision that sums need, and scales that cancel."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from agent_attention.compute.guard import is_ordinary, is_watched


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


def is_finite(x: Tensor) -> bool:
    """Whether a result has finite numbers, where to look at them costs nothing worth a name.

    That is on a CPU, operation by operation: on a GPU it would have to be waited for, and a graph
    cannot know; there the answer is yes. One pass over what is in the cache still.
    """
    if not is_ordinary(x) or x.device.type != "cpu" or is_watched():
        return True
    return math.isfinite(x.detach().sum().item())


def hold_back(x: Tensor) -> Tensor:
    """Queries or keys clamped, to 5.7e17 in float32: sums of 1024 of their products are finite."""
    limit = torch.finfo(x.dtype).max ** 0.5 / 32
    return x.clamp(-limit, limit)


FLOOR = -85.0  # exp of it is just a normal float32, so that no sum of weights vanishes


def exp_within(w: Tensor, dim: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """exp(w) and exp(0), for weights within a window and beyond it, by a common factor.

    The largest of all is 1; that beyond has the axes ``dim`` of length 1.
    """
    largest = w.detach().amax(dim, keepdim=True).clamp(min=0)
    return (w - largest).clamp(min=FLOOR).exp(), (-largest).clamp(min=FLOOR).exp()


def exp_to_one(x: Tensor, dim: int, floor: float | None = None) -> Tensor:
    """exp(x - max x) along an axis: the largest gives 1; a floor keeps the others above exp(floor).

    A common factor of all weights, as exp(max x) is, cancels in an average.
    """
    x = x - x.detach().amax(dim, keepdim=True)
    return (x if floor is None else x.clamp(min=floor)).exp()
