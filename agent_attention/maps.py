"""The two attention maps of agent attention, in full: to look at, not to compute with.

Shape letters: see ``agent_attention.mixers.agent``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.mixers.agent import AgentAttention


class AttentionMaps(NamedTuple):
    """Who attends to whom in one module; each softmax sums to one over the last dimension."""

    gather: Tensor  # (B, h, n, N): from which tokens each agent gathers
    serve: Tensor  # (B, h, N, n): which agents serve each token
    size: Pair  # (H, W) of the map
    agent_shape: Pair  # (a_h, a_w)

    def served_from(self, token: int) -> Tensor:
        """What reaches one token from all others through the agents, (B, h, N); sums to one."""
        return (self.serve[:, :, token].unsqueeze(2) @ self.gather).squeeze(2)


@torch.no_grad()
def attention_maps(attn: AgentAttention, x: Tensor, size: Pair) -> AttentionMaps:
    """The maps of eq. 4 and 5 of the paper (arXiv 2312.08874) for tokens x (B, N, C).

    Memory is that of two dense maps, B*h*n*N numbers each.
    """
    q, k, _ = attn.project(x)
    agents = attn.to_heads(attn.pool_agents(q, size)).transpose(1, 2)  # (B, h, n, d)
    q, k = (attn.to_heads(t).transpose(1, 2) for t in (q, k))  # (B, h, N, d)
    gathering, serving = (bias.agents() @ bias.tokens() for bias in attn.biases(size))  # (h, n, N)
    scale = q.shape[-1] ** -0.5
    gather = (agents @ k.transpose(2, 3) * scale + gathering).softmax(-1)
    serve = (q @ agents.transpose(2, 3) * scale + serving.transpose(1, 2)).softmax(-1)
    return AttentionMaps(gather, serve, size, attn.agent_shape)


@contextmanager
def recorded_maps(attn: nn.Module) -> Iterator[list[AttentionMaps]]:
    """Collect the maps of every call of one module while the context is open.

    Raises:
        TypeError: if the module is not an AgentAttention.
    """
    if not isinstance(attn, AgentAttention):
        raise TypeError(f"no agents in {type(attn).__name__}")
    found: list[AttentionMaps] = []

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(module, AgentAttention)
        found.append(attention_maps(module, *args))

    handle = attn.register_forward_pre_hook(record)
    try:
        yield found
    finally:
        handle.remove()
