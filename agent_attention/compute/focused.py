"""Focused linear attention: its map of queries and keys, and the linear product.

Letters: see ``agent_attention.mixers.agent``.
"""

import torch
from torch import Tensor

EPS = 1e-6


def focus(x: Tensor, sigma: Tensor, power: int) -> Tensor:
    """φ(x) = ‖u‖ uᵖ / ‖uᵖ‖ with u = (relu(x) + ε) / σ, norms over the channels of (B, N, C).

    u is divided by its largest channel before the power, which changes nothing but the range.
    """
    u = (x.relu() + EPS) / sigma
    largest = u.detach().amax(-1, keepdim=True)
    ratio = u / largest
    powers = ratio**power
    norms = [torch.linalg.vector_norm(each, dim=-1, keepdim=True) for each in (ratio, powers)]
    return powers * (largest * norms[0] / norms[1])


def linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (kᵀ v / n) / (q mean(k) + ε): q (B, h, N, d), k and v (B, h, n, d) -> (B, h, N, d)."""
    state = k.mT @ v / k.shape[2]  # (B, h, d, d)
    total = k.mean(2, keepdim=True)  # (B, h, 1, d)
    return q @ state / (q @ total.mT + EPS)
