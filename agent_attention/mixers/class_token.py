"""Agent attention for a map with a class token in front.

Letters: see ``agent_attention.mixers.agent``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from agent_attention.arguments import Pair
from agent_attention.compute.bias import to_agents
from agent_attention.compute.size_cache import cached
from agent_attention.layers import init_table
from agent_attention.mixers.agent import AgentAttention


class ClassTokenAgentAttention(AgentAttention):
    """``AgentAttention`` of 1 + N tokens, the first of which has no place on the map (Agent-DeiT).

    The class token is a query, a key and a value as any other, with learned scores of its own for
    each agent. It has no part in the pooling of agents and in DWC. Arguments: see
    ``AgentAttention``.
    """

    def __init__(self, dim: int, num_heads: int, **options: Any) -> None:
        super().__init__(dim, num_heads, **options)
        if self.agent_bias:
            p2 = self.base_grid**2
            self.ac_bias = init_table(1, num_heads, p2, 1)
            self.ca_bias = init_table(1, num_heads, 1, p2)

    def agents(self, q: Tensor, size: Pair) -> Tensor:
        """A (B, n, C), of the queries (B, 1 + N, C)."""
        return super().agents(q[:, 1:], size)

    def b1(self, size: Pair) -> Tensor | None:  # type: ignore[override]
        """B₁ (h, n, 1 + N), the class token in the first column."""
        bias = super().b1(size)
        if bias is None:
            return None

        def joined() -> tuple[Tensor]:
            first = to_agents(self.ac_bias[0].unsqueeze(-1), self.grid(size)).mT  # (h, n, 1)
            return (torch.cat([first, bias.dense()], -1),)

        return cached(joined, [self.ac_bias, *bias[:3]], bias[3:])[0]

    def b2(self, size: Pair) -> Tensor | None:  # type: ignore[override]
        """B₂ (h, 1 + N, n), the class token in the first row."""
        bias = super().b2(size)
        if bias is None:
            return None

        def joined() -> tuple[Tensor]:
            first = to_agents(self.ca_bias[0].mT.unsqueeze(-1), self.grid(size))  # (h, 1, n)
            return (torch.cat([first, bias.dense()], 1),)

        return cached(joined, [self.ca_bias, *bias[:3]], bias[3:])[0]

    def detail(self, v: Tensor, size: Pair) -> Tensor:
        """DWC(V) (B, 1 + N, C), nothing for the class token."""
        return F.pad(super().detail(v[:, 1:], size), (0, 0, 1, 0))
