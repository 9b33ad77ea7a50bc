"""A norm by the mean square of all channels, of products that may be out of range."""

import torch
from torch import Tensor

from agent_attention.compute.numerics import bounded

EPS = 1e-6
_SMALLEST = 1e-18  # divisor of a token; numbers of no account in float32
_FLOOR = 1e-24  # of a mean square; to the power of -3/2, in the gradient, it is a float32


def split_scales(*factors: Tensor) -> tuple[list[Tensor], Tensor]:
    """Factors (B, N, C) with numbers from -1 to 1, and the scale (B, 1, 1) of their product."""
    parts, scales = zip(*map(bounded, factors), strict=True)
    return list(parts), torch.stack(scales).prod(0)


def rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    """s x / √(mean (s x)² + ε), for tokens x (B, N, C) and a scale s that may be too large for x.

    SimpleRMSNorm of TransNormer (arXiv 2307.14995, section 3.1), without parameters.
    """
    # each token by its largest channel, which cancels: a square of small numbers would be 0
    largest = x.detach().abs().amax(-1, keepdim=True).clamp(min=_SMALLEST)
    x, scale = x / largest, scale * largest
    square = x.square().mean(-1, keepdim=True) + EPS / scale / scale
    return x * square.clamp(min=_FLOOR).rsqrt()  # which is below the floor where x is 0 alone
