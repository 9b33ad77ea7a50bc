"""Agent attention: a few agent tokens between the queries and the keys.

Letters used for shapes, here and in the other modules:
    B batch          C channels     H, W height and width of the feature map     N = H*W tokens
    h heads          d = C/h        Hs, Ws the map's size at pre-training
    (a_h, a_w) agent grid           n = a_h*a_w agents
    p side of the base agent grid   P = p*p base agents, for which the bias tables are learned
"""

from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.compute.bias import AgentBias
from agent_attention.compute.symbolic import pool
from agent_attention.layers import init_table
from agent_attention.mixers.base import Mixer, to_map, to_tokens
from agent_attention.mixers.grids import Grid, GridRule

_BLOCK = 7  # side of the block bias tables (spec of the published weights)


class AgentAttention(Mixer):
    """Multi-head agent attention (arXiv 2312.08874, eq. 4 and 5, figure 3).

        O = σ(Q Aᵀ / √d + B₂) V_A + DWC(V)    with    V_A = σ(A Kᵀ / √d + B₁) V

    σ is the softmax, A are the agents, pooled from the queries. They first attend to all keys
    (*agent aggregation*), then all queries attend to them (*agent broadcast*): two attentions of
    cost N*n instead of one of cost N*N.

    Args:
        dim: channels C; a multiple of ``num_heads``.
        num_heads: heads h.
        base_grid: p; the six bias tables are learned for p*p agents.
        agent_shape: agent grid (a_h, a_w) at run time, or a rule that gives it for a map; the
            tables are interpolated to it.
        table_shape: map size (Hs, Ws) the row and column bias tables are learned for; those of
            other maps are interpolated. The default is 224 pixels in patches of 16.
        qkv_bias: learn a bias in the query, key and value projections.
        attn_drop: dropout rate on both attention maps.
        proj_drop: dropout rate after the output projection.
        joint_qkv: one projection ``qkv`` (Swin's key names) instead of ``q`` and ``kv`` (PVT's).
        agent_bias: learn B₁ and B₂; without them there are no tables.
        detail: add DWC(V).
        projections: have ``q``, ``kv`` (or ``qkv``) and ``proj``, see ``Mixer``.

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        base_grid: int = 7,
        agent_shape: Grid = (7, 7),
        table_shape: Pair = (14, 14),
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        joint_qkv: bool = False,
        agent_bias: bool = True,
        detail: bool = True,
        projections: bool = True,
    ) -> None:
        shared = (qkv_bias, attn_drop, proj_drop, joint_qkv, detail, projections)
        super().__init__(dim, num_heads, *shared)
        self.base_grid = base_grid
        self.agent_shape = agent_shape
        self.table_shape = table_shape
        self.agent_bias = agent_bias
        if agent_bias:
            h, p2, (hs, ws) = num_heads, base_grid**2, table_shape
            # Names and shapes are those of published files: a = agent, n = token, h/w = row/column.
            self.an_bias = init_table(h, p2, _BLOCK, _BLOCK)
            self.na_bias = init_table(h, p2, _BLOCK, _BLOCK)
            self.ah_bias = init_table(1, h, p2, hs, 1)
            self.aw_bias = init_table(1, h, p2, 1, ws)
            self.ha_bias = init_table(1, h, hs, 1, p2)
            self.wa_bias = init_table(1, h, 1, ws, p2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, size: Pair) -> Tensor:
        """The equation above, of queries, keys and values (B, N, C)."""
        a = self.agents(q, size)  # (B, n, C)
        v_a = self.attend(a, k, v, self.b1(size))  # (B, n, C)
        o = self.attend(q, a, v_a, self.b2(size))  # (B, N, C)
        return self.add_detail(o, v, size)

    def agents(self, q: Tensor, size: Pair) -> Tensor:
        """A (B, n, C): the queries (B, N, C) averaged over the cells of the agent grid."""
        return to_tokens(pool(to_map(q, size), self.grid(size)))

    def grid(self, size: Pair) -> Pair:
        """(a_h, a_w) for a map of ``size`` (H, W)."""
        shape = self.agent_shape
        if isinstance(shape, GridRule):
            return shape.grid(size, self.base_grid, self.table_shape[0])
        return shape

    def b1(self, size: Pair) -> AgentBias | None:
        """B₁ (h, n, N): where tokens are, as agents see it (section 4.3)."""
        if not self.agent_bias:
            return None
        row, column = self.ah_bias[0], self.aw_bias[0]
        return AgentBias(self.an_bias, row, column, size, self.grid(size), tokens_first=False)

    def b2(self, size: Pair) -> AgentBias | None:
        """B₂ (h, N, n): where agents are, as tokens see it."""
        if not self.agent_bias:
            return None
        row, column = (t[0].permute(0, 3, 1, 2) for t in (self.ha_bias, self.wa_bias))
        return AgentBias(self.na_bias, row, column, size, self.grid(size), tokens_first=True)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, agent_shape={self.agent_shape}"
