"""Agent bias as thin factors: no (h, n, N) bias is ever built.

Letters: see ``agent_attention.attention``; T tokens, all N or some of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from agent_attention.checks import Pair
from agent_attention.layers import resize


class AgentBias(NamedTuple):
    """Logits between agents and the places of a map, interpolated from those of p*p base agents.

    Base agent (r, c) has the logits  across its map  base[h, r*p + c] = down across,  of rank R;
    agent (i, j) has  sum over r, c of  rows[i, r] columns[j, c] base[h, r*p + c].
    """

    rows: Tensor  # (a_h, p)
    columns: Tensor  # (a_w, p)
    down: Tensor  # (h, P, H, R)
    across: Tensor  # (h, P, R, W)

    def agents(self) -> Tensor:
        """Factor by agent when ``tokens`` is the other: (n, P)."""
        return torch.kron(self.rows, self.columns)

    def tokens(self) -> Tensor:
        """Factor by token, the logits of the base agents: (h, P, N)."""
        return (self.down @ self.across).flatten(2)

    def to(self, dtype: torch.dtype) -> "AgentBias":
        """The same bias in another type of numbers."""
        return AgentBias(*(factor.to(dtype) for factor in self))


def interpolation(size: int, to: int, like: Tensor) -> Tensor:
    """Matrix (to, size) of a linear resize with half-pixel centres, in type and place of another.

    The bilinear resize of a map is one of these for its rows and one for its columns.
    """
    one_hot = torch.eye(size, dtype=like.dtype, device=like.device)
    return resize(one_hot.unsqueeze(0).unsqueeze(0), (to, size))[0, 0]


def logits_by_place(
    block: Tensor, row: Tensor, column: Tensor, size: Pair
) -> tuple[Tensor, Tensor]:
    """The sum of three tables, each resized to a map (paper, section 4.3), as a product.

    Args:
        block: table (h, P, b, b), resized in both directions.
        row: table (h, P, Hs, 1), resized in height, the same in every column.
        column: table (h, P, 1, Ws), resized in width, the same in every row.
        size: the map's (H, W).

    Returns:
        Factors (h, P, H, R) and (h, P, R, W) with R = b + 2.
    """
    height, width = size
    side = block.shape[-1]
    row, column = resize(row, (height, 1)), resize(column, (1, width))
    across = interpolation(side, width, block).t().expand(*column.shape[:2], -1, -1)
    return (
        torch.cat([resize(block, (height, side)), row, torch.ones_like(row)], -1),
        torch.cat([across, torch.ones_like(column), column], -2),
    )
