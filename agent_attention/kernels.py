"""Softmax attention with a bias of low rank, and the choice of how to compute it.

    attend(q, k, v, q_bias, k_bias) = softmax(q k^T / sqrt(d) + q_bias k_bias^T) v

Agent biases are such products of thin factors (docs/performance.md), so that no (h, n, N) bias has
to be built, and the factors can ride along as P more channels of q and k. What a graphics card's
fused kernels take as it is, a CPU computes faster in tiles that stay in its cache.

Letters: Q queries, K keys; otherwise see ``agent_attention.attention``.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.slabs import wants_slabs
from agent_attention.tiles import tiled_attention

_FEW = 1 << 18  # scores of a sample for which one fused call for the whole batch is quicker
_ALIGN = 8  # channels of a head that fused kernels want in multiples


def attend(
    q: Tensor, k: Tensor, v: Tensor, q_bias: Tensor, k_bias: Tensor, dropout: float = 0.0
) -> Tensor:
    """Softmax attention; tokens come before heads, as linear layers give them.

    Args:
        q: queries (B, Q, h, d).
        k: keys (B, K, h, d).
        v: values (B, K, h, d).
        q_bias: factor of the bias by query, (Q, h, P).
        k_bias: factor of the bias by key, (K, h, P).
        dropout: rate of dropout on the attention map.

    Returns:
        (B, Q, h, d).
    """
    batch, queries, heads, _ = q.shape
    few = batch == 0 or queries * k.shape[1] * heads < _FEW
    if few or dropout or not wants_slabs(q):
        return _joined(q, k, v, q_bias, k_bias, dropout)
    outs = [tiled_attention(*sample, q_bias, k_bias) for sample in zip(q, k, v, strict=True)]
    return outs[0].unsqueeze(0) if len(outs) == 1 else torch.stack(outs)


def _joined(
    q: Tensor, k: Tensor, v: Tensor, q_bias: Tensor, k_bias: Tensor, dropout: float
) -> Tensor:
    """[q / sqrt(d), q_bias] [k, k_bias]^T is the whole logit: attention without a mask."""
    d, batch = q.shape[-1], q.shape[0]
    fill = -(d + q_bias.shape[-1]) % _ALIGN
    q = F.pad(torch.cat([q * d**-0.5, q_bias.expand(batch, -1, -1, -1)], -1), (0, fill))
    k = F.pad(torch.cat([k, k_bias.expand(batch, -1, -1, -1)], -1), (0, fill))
    v = F.pad(v, (0, q.shape[-1] - d))  # fused kernels want one width of all three
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=1.0)
    return out.transpose(1, 2)[..., :d]
