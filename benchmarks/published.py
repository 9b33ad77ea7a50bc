"""The published formulation of agent attention: what the backbones are compared with.

The definitions as they stand, one operation after the other: softmax is not fused with the products
around it, biases are dense, nothing is kept between forwards. And as it is published, every bias
table is resized in space and between agents by itself, and the biases are repeated over the batch.

Shape letters: see ``agent_attention.mixers.agent``.
"""

import copy

from torch import Tensor, nn

from agent_attention import AgentAttention
from agent_attention.arguments import Pair
from agent_attention.backbones import Backbone
from agent_attention.compute.bias import AgentBias, to_agents
from agent_attention.compute.guard import using
from agent_attention.compute.symbolic import resize


class Published(nn.Module):
    """The plain formulation of a backbone, on a deep copy of its weights, in ``model``.

    Raises:
        TypeError: if ``model`` is no backbone of this package.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, Backbone):
            raise TypeError(f"there is no published form of {type(model).__name__}")
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            if isinstance(module, AgentAttention):
                module.__class__ = PublishedAgentAttention

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) to the maps of the backbone."""
        with using(way="plain"):
            maps: tuple[Tensor, ...] = self.model(x)
        return maps


class PublishedAgentAttention(AgentAttention):
    """Agent attention with eight resizes a forward."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation of ``AgentAttention`` with the biases of ``published_bias``."""
        b1, b2 = self.b1(size), self.b2(size)
        assert b1 is not None and b2 is not None
        a = self.agents(q, size)
        v_a = self.attend(a, k, v, published_bias(b1).repeat(len(q), 1, 1, 1))
        o = self.attend(q, a, v_a, published_bias(b2).repeat(len(q), 1, 1, 1))
        return o + self.detail(v, size)


def published_bias(bias: AgentBias) -> Tensor:
    """(h, n, N), or (h, N, n): tables resized in space and in agents one by one, then added."""
    tables = (bias.block, bias.row + bias.column)
    block, cross = (to_agents(resize(table, bias.size), bias.agent_shape) for table in tables)
    dense = block + cross
    return dense if bias.tokens_first else dense.mT
