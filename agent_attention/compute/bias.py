"""The agent bias: its definition, and the same as thin factors, of which no (h, n, N) is built.

Letters: see ``agent_attention.mixers.agent``; M = m_h ⊗ m_w, and K̂ are docs/performance.md's.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.compute.size_cache import SizeCache, cached, pure
from agent_attention.compute.symbolic import resize


class Factors(NamedTuple):
    """Logits between agents and tokens as products of thin factors (all resizes are separable).

    Those of the P base agents are maps of rank b + 1; agent (i, j) interpolates between them::

        K̂[h, p] = y[h, p] x + row[h, p]                                (H, W)
        B[h, i*a_w + j] = sum over r, c of  m_h[i, r] m_w[j, c] K̂[h, r*p + c]
    """

    m_h: Tensor  # (a_h, p), no gradient
    m_w: Tensor  # (a_w, p), no gradient
    x: Tensor  # (b + 1, W), no gradient
    y: Tensor  # (h, P, H, b + 1)
    row: Tensor  # (h, P, 1, W), the same in every row of the map

    def by_agent(self) -> Tensor:
        """M (n, P)."""
        return torch.kron(self.m_h, self.m_w)

    def by_token(self) -> Tensor:
        """K̂ (h, P, N), the logits of the base agents."""
        return (self.y @ self.x + self.row).flatten(2)

    def to(self, dtype: torch.dtype) -> "Factors":
        """The same factors in another type of numbers."""
        return Factors(*(factor.to(dtype) for factor in self))


class AgentBias(NamedTuple):
    """The bias between agents and the tokens of a map, of three tables (paper, section 4.3)."""

    block: Tensor  # (h, P, b, b), resized in both directions
    row: Tensor  # (h, P, Hs, 1), resized in height, the same in every column
    column: Tensor  # (h, P, 1, Ws), resized in width, the same in every row
    size: Pair  # (H, W)
    agent_shape: Pair  # (a_h, a_w)
    tokens_first: bool  # a bias of queries that are tokens, as in B2

    def dense(self) -> Tensor:
        """(h, n, N), or (h, N, n): the tables resized in space, then from base agents to agents."""
        places = resize(self.block, self.size) + resize(self.row + self.column, self.size)
        bias = to_agents(places, self.agent_shape)
        return bias if self.tokens_first else bias.mT

    def factors(self) -> Factors:
        """The same bias in factors."""
        p, width, block = math.isqrt(self.block.shape[1]), self.size[1], self.block
        m_h, m_w = (interpolation(p, a, block.dtype, block.device) for a in self.agent_shape)
        x = columns_and_one(block.shape[3], width, block.dtype, block.device)
        return Factors(m_h, m_w, x, *cached(self.resized, self[:3], self[3:]))

    def product(self) -> Tensor:
        """``dense`` from the factors; of small maps it is kept by size, without gradients."""

        def made() -> tuple[Tensor]:
            factors = self.factors()
            m, base = factors.by_agent(), factors.by_token()
            return (base.mT @ m.t() if self.tokens_first else m @ base,)

        return products(made, self[:3], self[3:])[0]

    def resized(self) -> tuple[Tensor, Tensor]:
        """``y`` and ``row`` of the factors."""
        height, width = self.size
        rows = resize(self.block, (height, self.block.shape[3]))
        y = torch.cat([rows, resize(self.row, (height, 1))], -1)
        return y, resize(self.column, (1, width))


products = SizeCache(8 * 2**20)  # a bias of few scores has at most 4 MiB


def to_agents(places: Tensor, agent_shape: Pair) -> Tensor:
    """Logits of base agents (h, P, H, W), resized from p x p to the agent grid: (h, N, n)."""
    p = math.isqrt(places.shape[1])
    grids = places.flatten(2).mT.unflatten(2, (p, p))  # (h, N, p, p)
    return resize(grids, agent_shape).flatten(2)


@pure
def interpolation(size: int, to: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix (to, size) of a linear resize with half-pixel centres.

    The bilinear resize of a map is one of these for its rows and one for its columns.
    """
    one_hot = torch.eye(size, dtype=dtype, device=device)
    return resize(one_hot[None, None], (to, size))[0, 0]


@pure
def columns_and_one(size: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix (size + 1, W): the resize of a table's columns to ``width``, and a row of ones."""
    matrix = interpolation(size, width, dtype, device).t()
    return torch.cat([matrix, torch.ones_like(matrix[:1])])
