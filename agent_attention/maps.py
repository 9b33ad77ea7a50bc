"""The two attention maps of agent attention, in full: to look at, not to compute with.

Shape letters: see ``agent_attention.mixers.agent``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.compute.attend import attention_weights
from agent_attention.compute.bias import AgentBias
from agent_attention.mixers.agent import AgentAttention


class AttentionMaps(NamedTuple):
    """Who attends to whom in one module; each softmax sums to one over the last dimension.

    Where there is a class token, it is in front of the N tokens of the map.
    """

    aggregate: Tensor  # (B, h, n, N or 1 + N): from which tokens each agent gathers
    broadcast: Tensor  # (B, h, N or 1 + N, n): from which agents each token takes
    size: Pair  # (H, W) of the map
    agent_shape: Pair  # (a_h, a_w)

    @property
    def class_tokens(self) -> int:
        """How many tokens are in front of those of the map: 0 or 1."""
        return self.aggregate.shape[-1] - self.size[0] * self.size[1]

    def reach(self, token: int) -> Tensor:
        """What comes to one token from all through the agents, (B, h, N or 1 + N); sums to one."""
        return (self.broadcast[:, :, token].unsqueeze(2) @ self.aggregate).squeeze(2)


@torch.no_grad()
def attention_maps(
    attn: AgentAttention, x: Tensor | tuple[Tensor, ...], size: Pair
) -> AttentionMaps:
    """The maps of eq. 4 and 5 of the paper (arXiv 2312.08874) for the input x of a module.

    Memory is that of two dense maps, B*h*n*N numbers each.

    Args:
        attn: the module.
        x: tokens (B, N, C), or (B, 1 + N, C) with a class token; or, of a module without
            projections, its queries, keys and values.
        size: (H, W) of the map.
    """
    q, k, _ = attn.project(x, size) if isinstance(x, Tensor) else x
    a = attn.agents(q, size)  # (B, n, C)
    q, k, a = (attn.split_heads(t) for t in (q, k, a))
    b1, b2 = (b.dense() if isinstance(b, AgentBias) else b for b in (attn.b1(size), attn.b2(size)))
    aggregate, broadcast = attention_weights(a, k, b1), attention_weights(q, a, b2)
    return AttentionMaps(aggregate, broadcast, size, attn.grid(size))


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
