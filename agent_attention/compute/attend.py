"""The two softmax attentions of agent attention, and the choice of how to compute them.

    gather(agents, k, v) = softmax(agents k^T / sqrt(d) + bias) v
    serve(q, agents, v)  = softmax(q agents^T / sqrt(d) + bias^T) v

A bias is a product of thin factors (``agent_attention.compute.bias``), which can ride along as P
more channels of queries and keys. What a graphics card's fused kernels take as it is, a CPU computes
faster in tiles that stay in its cache.

Letters: see ``agent_attention.mixers.agent``. Tokens come before heads, as linear layers give them.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.compute.bias import AgentBias
from agent_attention.compute.chunks import wants_slabs
from agent_attention.compute.tiles import fill_with_served, gather_in_tiles, serve_in_tiles

_FEW = 1 << 18  # scores of a sample for which one fused call for the whole batch is quicker
_ALIGN = 8  # channels of a head that fused kernels want in multiples


def gather(agents: Tensor, k: Tensor, v: Tensor, bias: AgentBias, dropout: float = 0.0) -> Tensor:
    """Agents attend to all tokens (*agent aggregation*).

    Args:
        agents: (B, n, h, d).
        k: (B, N, h, d).
        v: (B, N, h, d).
        bias: between agents and tokens.
        dropout: rate of dropout on the attention map.

    Returns:
        (B, n, h, d).
    """
    if _wants_tiles(agents, k, dropout):
        return _each(gather_in_tiles, agents, k, v, bias)
    of_agents, of_tokens = _channels(bias, agents.shape[2])
    return _joined(agents, k, v, of_agents, of_tokens, dropout)


def serve(
    q: Tensor,
    agents: Tensor,
    v: Tensor,
    bias: AgentBias,
    dropout: float = 0.0,
    overwrite: bool = False,
) -> Tensor:
    """Tokens attend to all agents (*agent broadcast*).

    Args:
        q: (B, N, h, d).
        agents: (B, n, h, d), as keys.
        v: what the agents gathered, (B, n, h, d).
        bias: between agents and tokens.
        dropout: rate of dropout on the attention map.
        overwrite: the result may be put into the memory of ``q``; there are no gradients then.

    Returns:
        (B, N, h, d).
    """
    if _wants_tiles(agents, q, dropout):
        if overwrite:
            for sample in zip(q, agents, v, strict=True):
                fill_with_served(sample[0], *sample, bias)
            return q
        return _each(serve_in_tiles, q, agents, v, bias)
    of_agents, of_tokens = _channels(bias, agents.shape[2])
    return _joined(q, agents, v, of_tokens, of_agents, dropout)


def _wants_tiles(agents: Tensor, tokens: Tensor, dropout: float) -> bool:
    if dropout or not wants_slabs(tokens):
        return False  # before any size is looked at, which a recorded graph may leave open
    batch, n, heads, _ = agents.shape
    return batch > 0 and n * tokens.shape[1] * heads >= _FEW


def _each(
    attend: Callable[[Tensor, Tensor, Tensor, AgentBias], Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: AgentBias,
) -> Tensor:
    """One sample of the batch after the other."""
    outs = [attend(*sample, bias) for sample in zip(q, k, v, strict=True)]
    return outs[0].unsqueeze(0) if len(outs) == 1 else torch.stack(outs)


def _channels(bias: AgentBias, heads: int) -> tuple[Tensor, Tensor]:
    """The factors by agent (n, h, P) and by token (N, h, P)."""
    return bias.agents().unsqueeze(1).expand(-1, heads, -1), bias.tokens().permute(2, 0, 1)


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
