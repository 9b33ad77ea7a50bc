"""Agent bias as thin factors: no (h, n, N) bias is ever built.

Letters: see ``agent_attention.mixers.agent``; T tokens, all N or some of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.layers import resize


class AgentBias(NamedTuple):
    """Logits between agents and the places of a map, as products of thin factors.

    Those of the base agents are maps of rank R plus a row; agent (i, j) interpolates between them::

        base[h, r*p + c] = down[h, r*p + c] across + level[h, r*p + c]                  (H, W)
        bias[h, i*a_w + j] = sum over r, c of  rows[i, r] columns[j, c] base[h, r*p + c]
    """

    rows: Tensor  # (a_h, p), no gradient
    columns: Tensor  # (a_w, p), no gradient
    across: Tensor  # (R, W), no gradient
    down: Tensor  # (h, P, H, R)
    level: Tensor  # (h, P, 1, W), the same in every row of the map

    def agents(self) -> Tensor:
        """Factor by agent when ``tokens`` is the other: (n, P)."""
        return torch.kron(self.rows, self.columns)

    def tokens(self) -> Tensor:
        """Factor by token, the logits of the base agents: (h, P, N)."""
        return (self.down @ self.across + self.level).flatten(2)

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
    """The sum of three tables, each resized to a map (paper, section 4.3), in factors.

    Args:
        block: table (h, P, b, b), resized in both directions.
        row: table (h, P, Hs, 1), resized in height, the same in every column.
        column: table (h, P, 1, Ws), resized in width, the same in every row.
        size: the map's (H, W).

    Returns:
        ``down`` and ``level`` of ``AgentBias``, where ``across`` is ``columns_and_one``.
    """
    height, width = size
    rows = resize(block, (height, block.shape[-1]))
    return torch.cat([rows, resize(row, (height, 1))], -1), resize(column, (1, width))


def columns_and_one(block: Tensor, width: int) -> Tensor:
    """Matrix (b + 1, W): the resize of a table's b columns to ``width``, and a row of ones."""
    matrix = interpolation(block.shape[-1], width, block).t()
    return torch.cat([matrix, torch.ones_like(matrix[:1])])
