"""The published formulations of the mixers: what the backbones are compared with.

The definitions as they stand, one operation after the other: softmax is not fused with the products
around it, biases are dense, nothing is kept between forwards. And as it is published, every bias
table of agent attention is resized in space and between agents by itself, and the biases are
repeated over the batch.

Shape letters: see ``agent_attention.mixers.agent``.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention import AgentAttention
from agent_attention.arguments import Pair
from agent_attention.backbones import Backbone
from agent_attention.compute.bias import AgentBias, to_agents
from agent_attention.compute.guard import using
from agent_attention.compute.place import in_window
from agent_attention.compute.symbolic import resize
from agent_attention.mixers.aft_conv import AFTConv
from agent_attention.mixers.aft_local import AFTLocal
from agent_attention.mixers.base import Mixer, to_map, to_tokens
from agent_attention.mixers.focused import FocusedAttention
from agent_attention.mixers.norm import KERNELS, NormAttention


class Published(nn.Module):
    """The plain formulation of a backbone or a mixer, on a deep copy of its weights, in ``model``.

    Raises:
        TypeError: if ``model`` is neither.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, (Backbone, Mixer)):
            raise TypeError(f"there is no published form of {type(model).__name__}")
        self.model = copy.deepcopy(model)
        for module in self.model.modules():
            module.__class__ = FORMS.get(type(module), type(module))

    def forward(self, x: Tensor, *size: Pair) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) to the maps of the backbone; tokens and a size to tokens."""
        with using(way="plain"):
            maps: tuple[Tensor, ...] = self.model(x, *size)
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
        return self.add_detail(o, v, size)


def published_bias(bias: AgentBias) -> Tensor:
    """(h, n, N), or (h, N, n): tables resized in space and in agents one by one, then added."""
    tables = (bias.block, bias.row + bias.column)
    block, cross = (to_agents(resize(table, bias.size), bias.agent_shape) for table in tables)
    dense = block + cross
    return dense if bias.tokens_first else dense.mT


class PublishedFocusedAttention(FocusedAttention):
    """Focused linear attention (arXiv 2308.00442, eq. 5 to 7), heads in the batch."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation of ``FocusedAttention``."""
        sigma = F.softplus(self.scale)
        q, k = q.relu() + 1e-6, (k + self.positions(size)).relu() + 1e-6
        q, k = q / sigma, k / sigma
        q_norm, k_norm = q.norm(dim=-1, keepdim=True), k.norm(dim=-1, keepdim=True)
        q, k = q**self.factor, k**self.factor
        q = q / q.norm(dim=-1, keepdim=True) * q_norm
        k = k / k.norm(dim=-1, keepdim=True) * k_norm
        q, k, v = (self.split_heads(x).flatten(0, 1).contiguous() for x in (q, k, v))
        z = 1 / (torch.einsum("bic,bc->bi", q, k.sum(1)) + 1e-6)
        state = torch.einsum("bjc,bjd->bcd", k, v)
        out = torch.einsum("bic,bcd,bi->bid", q, state, z)
        maps = v.mT.unflatten(-1, tuple(size))
        out = out + self.dwc(maps).flatten(2).mT
        return out.unflatten(0, (-1, self.num_heads)).transpose(1, 2).flatten(2)


class PublishedNormAttention(NormAttention):
    """Linear attention with SimpleRMSNorm (arXiv 2210.10340)."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation of ``NormAttention``."""
        phi = KERNELS[self.kernel]
        q, k, v = (self.split_heads(x) for x in (phi(q), phi(k), v))
        state = torch.einsum("bhnd,bhne->bhde", k, v) / k.shape[2]
        out = torch.einsum("bhnd,bhde->bhne", q, state).transpose(1, 2).flatten(2)
        return out * (out.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


class PublishedAFTConv(AFTConv):
    """AFT-conv as eq. 8 of arXiv 2105.14103 stands: two convolutions by exp(w) - 1."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation of ``AFTConv``."""
        kernel = (self.place().exp() - 1).unsqueeze(1)  # (h, 1, s, s)
        weights = (k - k.amax(1, keepdim=True)).exp()  # (B, N, h)
        valued = weights.unsqueeze(-1) * v.unflatten(-1, (self.num_heads, -1))
        sums = []
        for terms in (valued.flatten(2), weights):
            maps = to_map(terms, size)
            repeated = kernel.repeat_interleave(maps.shape[1] // self.num_heads, 0)
            near = F.conv2d(maps, repeated, padding=kernel.shape[-1] // 2, groups=maps.shape[1])
            sums.append(to_tokens(near) + terms.sum(1, keepdim=True))
        mean = sums[0].unflatten(-1, (self.num_heads, -1)) / sums[1].unsqueeze(-1)
        return q.sigmoid() * mean.flatten(2)


class PublishedAFTLocal(AFTLocal):
    """AFT-local as eq. 2 of arXiv 2105.14103 stands, with w of all tokens and all keys."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation of ``AFTLocal``."""
        u, z = self.places(size)
        w = (u.mT @ z).masked_fill(~in_window(size, self.window, q.device), 0)
        by_place = (w - w.amax(-1, keepdim=True)).exp()  # (h, N, N)
        by_key = (k - k.amax(1, keepdim=True)).exp()
        valued, weights = (self.split_heads(x) for x in (by_key * v, by_key))
        mean = (by_place @ valued) / (by_place @ weights)
        return q.sigmoid() * mean.transpose(1, 2).flatten(2)


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    AgentAttention: PublishedAgentAttention,
    FocusedAttention: PublishedFocusedAttention,
    NormAttention: PublishedNormAttention,
    AFTConv: PublishedAFTConv,
    AFTLocal: PublishedAFTLocal,
}
