"""Softmax attention: its definition, and the choice of how to compute it.

Shapes: q (B, h, Q, d), k and v (B, h, K, d); a bias is (h, Q, K), or one that can be broadcast to
the scores, or an ``AgentBias``, whose factors never become a tensor of that size.
Letters: see ``agent_attention.mixers.agent``.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.compute.attend_operator import attend_compiled
from agent_attention.compute.bias import AgentBias, Factors
from agent_attention.compute.guard import (
    is_for_cpu,
    is_half_on_cpu,
    is_recording,
    is_transformed,
    is_watched,
    settings,
)
from agent_attention.compute.kept import attend_kept
from agent_attention.compute.numerics import full_precision, hold_back, is_finite, without_autocast
from agent_attention.compute.operators import is_compiling
from agent_attention.compute.tiles import aggregate, broadcast, broadcast_into

Bias = Tensor | AgentBias | None
WAYS = ("plain", "fused", "kept", "tiled", None)
_ALIGN = 8  # channels of a head that fused kernels want in multiples


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + bias): (B, h, Q, K), each row with the sum of one.

    Scores of half precision are computed in float32, as torch's kernels do: they may be larger
    than float16 can hold.
    """
    query, key = full_precision(q, k)
    with without_autocast(q):
        scores = query @ key.mT * q.shape[-1] ** -0.5
    return (scores if bias is None else scores + bias).softmax(-1).to(q.dtype)


def attend_plain(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """softmax(q kᵀ / √d + bias) v: (B, h, Q, d). The definition that all other ways must equal."""
    return F.dropout(attention_weights(q, k, bias), dropout) @ v


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Bias = None,
    dropout: float = 0.0,
    way: str | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``attend_plain`` in the way that is quickest here.

    Args:
        q: queries (B, h, Q, d).
        k: keys (B, h, K, d).
        v: values (B, h, K, d).
        bias: added to the scores.
        dropout: rate of dropout on the attention weights.
        way: 'plain', the definition; 'fused', torch's kernels; 'kept' and 'tiled', for small and
            for large maps on a CPU where there is an ``AgentBias`` and no dropout, whatever the
            size, and else fused. The default is that of ``settings()``, and there None, which
            chooses.
        out: memory that the result may be written to, also that of ``q``; for use without
            gradients.

    Returns:
        (B, h, Q, d). Scores that leave the type's range are those of queries and keys that are
        held back from it, where ``is_finite`` looks; not if there is ``out``.

    Raises:
        ValueError: if there is no such way.
    """
    if way is None and isinstance(bias, AgentBias) and is_half_on_cpu(q) and _has_few(q, k):
        whole_q, whole_k, whole_v = full_precision(q, k, v)  # torch's kernels take longer there
        with without_autocast(q):
            return attend(whole_q, whole_k, whole_v, bias, dropout).to(q.dtype)
    way = _choose(q, k, bias, dropout, way)
    found = _attend(q, k, v, bias, dropout, way, out)
    if out is not None or q.dtype == torch.float16 or is_finite(found):
        return found
    way = "plain" if way == "kept" else way  # which rounds sums of equal numbers to equal scores
    return _attend(hold_back(q), hold_back(k), v, bias, dropout, way, None)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Bias, dropout: float, way: str, out: Tensor | None
) -> Tensor:
    """What ``attend`` gives while scores are finite, in a way that is chosen."""
    if not isinstance(bias, AgentBias):
        if way == "plain":
            return attend_plain(q, k, v, bias, dropout)
        mask = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    if way == "plain":
        return attend_plain(q, k, v, bias.dense(), dropout)
    if way == "kept":
        return attend_kept(q, k, v, bias)
    if way == "compiled":
        return attend_compiled(q, k, v, bias)
    factors = bias.factors().to(q.dtype)
    if way == "tiled" and out is not None and bias.tokens_first:
        broadcast_into(out, q, k, v, factors)
        return out
    if way == "tiled":
        return (broadcast if bias.tokens_first else aggregate)(q, k, v, factors)
    return _fused(q, k, v, factors, bias.tokens_first, dropout)


def _choose(q: Tensor, k: Tensor, bias: Bias, dropout: float, way: str | None) -> str:
    if is_recording():  # before any size is looked at, which a graph may leave open
        tiles = is_compiling() and isinstance(bias, AgentBias) and is_for_cpu(q) and not dropout
        return way or ("compiled" if tiles else "fused")
    if is_transformed():
        return "plain"  # the others lack rules for it
    way = way or settings().way or ("plain" if is_watched() else None)
    if way not in WAYS:
        raise ValueError(f"way must be one of {WAYS}, got {way!r}")
    if not len(q):
        return "plain"  # no images: of half precision torch's kernels on a GPU return None
    if way in ("plain", "fused"):
        return way
    if not isinstance(bias, AgentBias):
        return "fused"
    if not is_for_cpu(q):
        return "plain" if way is None and _is_slow_fused(q) else "fused"
    if dropout:
        return "fused"
    return way or ("kept" if _has_few(q, k) else "tiled")


def _has_few(q: Tensor, k: Tensor) -> bool:
    """Whether a sample has few scores."""
    return q.shape[1] * q.shape[2] * k.shape[2] < settings().few


def _is_slow_fused(q: Tensor) -> bool:
    """Whether torch's kernels take longer than the definition: in a training step of float32.

    Measured on an H100, 2 x 800 x 1344, Agent-PVT-T (docs/performance.md): 140 ms against 100 ms.
    Without gradients, and in half precision, they are quicker.
    """
    return q.device.type != "cpu" and q.dtype == torch.float32 and q.requires_grad


def _fused(
    q: Tensor, k: Tensor, v: Tensor, bias: Factors, tokens_first: bool, dropout: float
) -> Tensor:
    """[q / √d, M] [k, K̂]ᵀ is the whole score: attention without a mask, with P more channels."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # tokens first, as they lie in memory
    by_agent = bias.by_agent().unsqueeze(1).expand(-1, q.shape[2], -1)  # (n, h, P)
    by_token = bias.by_token().permute(2, 0, 1)  # (N, h, P)
    of_q, of_k = (by_token, by_agent) if tokens_first else (by_agent, by_token)
    d, batch = q.shape[-1], q.shape[0]
    fill = -(d + of_q.shape[-1]) % _ALIGN
    q = F.pad(torch.cat([q * d**-0.5, of_q.expand(batch, -1, -1, -1)], -1), (0, fill))
    k = F.pad(torch.cat([k, of_k.expand(batch, -1, -1, -1)], -1), (0, fill))
    v = F.pad(v, (0, q.shape[-1] - d))  # fused kernels want one width of all three
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=1.0)[..., :d]
