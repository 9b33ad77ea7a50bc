"""Focused linear attention: its map of queries and keys, and the linear product.

Letters: see ``agent_attention.mixers.agent``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.compute.guard import may_replace
from agent_attention.compute.numerics import bounded
from agent_attention.compute.symbolic import join_heads

EPS = 1e-6
_FLOOR = 1e-18  # of a denominator; its inverse squared, in the gradient, is a float32


def focus(x: Tensor, sigma: Tensor, power: int) -> tuple[Tensor, Tensor]:
    """φ(x) = ‖u‖ uᵖ / ‖uᵖ‖ with u = (relu(x) + ε) / σ, norms over the channels of (B, N, C).

    Returns:
        φ(x) divided by the largest channel of u (B, N, C), and that channel (B, N, 1).
    """
    u = (x.relu() + EPS) / sigma
    largest = u.amax(-1, keepdim=True)
    ratio = u / largest
    powers = ratio**power
    norms = [torch.linalg.vector_norm(each, dim=-1, keepdim=True) for each in (ratio, powers)]
    return powers * (norms[0] / norms[1]), largest


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, of_q: Tensor, of_k: Tensor, heads: int
) -> Tensor:
    """q (kᵀ v / n) / (q mean(k) + ε) in each head, q and k times a factor for each token.

    The factors cancel but for ε, so that what is computed has no larger numbers than v.

    Args:
        q: queries (B, N, C).
        k: keys (B, n, C).
        v: values (B, n, C).
        of_q: factors (B, N, 1).
        of_k: factors (B, n, 1).
        heads: h.

    Returns:
        (B, N, C).
    """
    most = of_k.detach().amax(1, keepdim=True)  # (B, 1, 1)
    v, scale = bounded(v)
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k * (of_k / most), v))
    state = k.mT @ v / k.shape[2]  # (B, h, d, d)
    total = k.mean(2, keepdim=True)  # (B, h, 1, d)
    least = (EPS / of_q / most).unsqueeze(1)  # (B, 1, N, 1)
    out = q @ state / (q @ total.mT + least).clamp(min=_FLOOR)
    return join_heads(out) * scale


def convolve_heads(conv: nn.Conv2d, maps: Tensor, heads: int) -> Tensor:
    """A depth-wise convolution of d channels on those of each head, for maps (B, h*d, H, W)."""
    if not may_replace(maps, (conv, nn.Conv2d)):
        per_head = conv(maps.unflatten(1, (heads, -1)).flatten(0, 1))
        return per_head.unflatten(0, (-1, heads)).flatten(1, 2)
    # as one convolution, which needs no copy of maps whose channels lie last
    weight = conv.weight.repeat(heads, 1, 1, 1)
    bias = None if conv.bias is None else conv.bias.repeat(heads)
    pad = conv.kernel_size[0] // 2
    return F.conv2d(maps, weight, bias, padding=pad, groups=len(weight))
