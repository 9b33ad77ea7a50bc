"""Agent attention: a few agent tokens between the queries and the keys.

Letters used for shapes, here and in the other modules:
    B batch          C channels     H, W height and width of the feature map     N = H*W tokens
    h heads          d = C/h        Hs, Ws the map's size at pre-training
    (a_h, a_w) agent grid           n = a_h*a_w agents
    p side of the base agent grid   P = p*p base agents, for which the bias tables are learned
"""

import functools

from torch import Tensor, nn

from agent_attention.arguments import Pair, check_heads
from agent_attention.compute.attend import gather, serve
from agent_attention.compute.bias import AgentBias, columns_and_one, interpolation, logits_by_place
from agent_attention.compute.projections import project, project_into
from agent_attention.compute.size_cache import BySize
from agent_attention.layers import add_into, init_table, may_overwrite, pool

_BLOCK = 7  # side of the block bias tables (spec of the published weights)


class AgentAttention(nn.Module):
    """Multi-head agent attention with agent bias and depth-wise convolution.

    Agents, pooled from the queries, first gather from all keys (*agent aggregation*) and then
    serve all queries (*agent broadcast*): two softmax attentions of cost N*n instead of one of
    cost N*N (arXiv 2312.08874, eq. 4 and 5, figure 3).

    Args:
        dim: channels C; a multiple of ``num_heads``.
        num_heads: heads h.
        base_grid: p; the six bias tables are learned for p*p agents.
        agent_shape: agent grid (a_h, a_w) at run time; the tables are interpolated to it.
        table_shape: map size (Hs, Ws) the row and column bias tables are learned for; those of
            other maps are interpolated. The default is 224 pixels in patches of 16.
        qkv_bias: learn a bias in the query, key and value projections.
        attn_drop: dropout rate on both attention maps.
        proj_drop: dropout rate after the output projection.
        joint_qkv: one projection ``qkv`` (Swin's key names) instead of ``q`` and ``kv`` (PVT's).

    Raises:
        ValueError: if ``dim`` is not a multiple of ``num_heads``.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        base_grid: int = 7,
        agent_shape: Pair = (7, 7),
        table_shape: Pair = (14, 14),
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        joint_qkv: bool = False,
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.base_grid = base_grid
        self.agent_shape = agent_shape
        self.attn_drop = attn_drop

        if joint_qkv:
            self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        else:
            self.q = nn.Linear(dim, dim, bias=qkv_bias)
            self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.joint_qkv = joint_qkv
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.dwc = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim)

        h, p2, (hs, ws) = num_heads, base_grid**2, table_shape
        # Names and shapes are the published checkpoints': a = agent, n = token, h/w = row/column.
        self.an_bias = init_table(h, p2, _BLOCK, _BLOCK)
        self.na_bias = init_table(h, p2, _BLOCK, _BLOCK)
        self.ah_bias = init_table(1, h, p2, hs, 1)
        self.aw_bias = init_table(1, h, p2, 1, ws)
        self.ha_bias = init_table(1, h, hs, 1, p2)
        self.wa_bias = init_table(1, h, 1, ws, p2)
        self.by_size = BySize()

    def forward(
        self,
        x: Tensor,
        size: Pair,
        norm: nn.Module | None = None,
        spare: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend over a map.

        Args:
            x: tokens (B, N, C), row-major.
            size: (H, W) with H*W = N.
            norm: layer that the tokens go through first.
            spare: tensors (B, N, C) that may be overwritten where there are no gradients; those
                that nobody needs any more are left in it.

        Returns:
            Tokens (B, N, C).
        """
        q, k, v = self.project(x, norm, spare)  # each (B, N, C)
        agents = self.pool_agents(q, size)  # (B, n, C)
        gathering, serving = self.biases(size)
        free = may_overwrite(self)
        q, keys, values, agents = (self.to_heads(x) for x in (q, k, v, agents))  # (B, N/n, h, d)
        dropout = self.attn_drop if self.training else 0.0

        agent_v = gather(agents, keys, values, gathering.to(q.dtype), dropout)  # (B, n, h, d)
        out = serve(q, agents, agent_v, serving.to(q.dtype), dropout, free).flatten(2)  # (B, N, C)
        detail = self.local_detail(v, size)
        if free:  # on large maps new memory costs as much as the arithmetic
            out = add_into(out, detail)
            if spare is not None:
                spare += [each for each in (out, v, detail) if each.is_contiguous()]
            return self.proj_drop(project_into(self.proj, out, k))
        return self.proj_drop(self.proj(out + detail))

    def project(
        self, x: Tensor, norm: nn.Module | None = None, spare: list[Tensor] | None = None
    ) -> list[Tensor]:
        """Queries, keys and values of tokens (B, N, C), each (B, N, C)."""
        linears = [self.qkv] if self.joint_qkv else [self.q, self.kv]
        return project(linears, x, x.shape[-1], norm, spare)

    def pool_agents(self, q: Tensor, size: Pair) -> Tensor:
        """Agents (B, n, C): the queries (B, N, C) averaged over the cells of the agent grid."""
        return to_tokens(pool(to_map(q, size), self.agent_shape))

    def local_detail(self, v: Tensor, size: Pair) -> Tensor:
        """Depth-wise convolution of the values (B, N, C): the diversity that low-rank maps lose."""
        return to_tokens(self.dwc(to_map(v, size)))

    def to_heads(self, x: Tensor) -> Tensor:
        """(B, N or n, C) as (B, N or n, h, d), in the same memory."""
        return x.unflatten(-1, (self.num_heads, -1))

    def biases(self, size: Pair) -> tuple[AgentBias, AgentBias]:
        """The biases B1, of gathering, and B2, of serving (paper, section 4.3).

        The tables are resized in space to ``size``, and from p*p base agents to the agent grid;
        both are bilinear with half-pixel centres.
        """
        tables = [self.an_bias, self.ah_bias, self.aw_bias]
        tables += [self.na_bias, self.ha_bias, self.wa_bias]
        make = functools.partial(self._bias_factors, size)
        factors = self.by_size((size, self.agent_shape), tables, make)
        fixed, gathering, serving = factors[:3], factors[3:5], factors[5:]
        return AgentBias(*fixed, *gathering), AgentBias(*fixed, *serving)

    def _bias_factors(self, size: Pair) -> tuple[Tensor, ...]:
        to_row, to_column = (t.squeeze(0).permute(0, 3, 1, 2) for t in (self.ha_bias, self.wa_bias))
        gathering = (self.an_bias, self.ah_bias.squeeze(0), self.aw_bias.squeeze(0))
        serving = (self.na_bias, to_row, to_column)
        fixed = [interpolation(self.base_grid, a, self.an_bias) for a in self.agent_shape]
        fixed.append(columns_and_one(self.an_bias, size[1]))
        return *fixed, *logits_by_place(*gathering, size), *logits_by_place(*serving, size)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, agent_shape={tuple(self.agent_shape)}"


def to_map(x: Tensor, size: Pair) -> Tensor:
    """Tokens (B, N, C) as a map (B, C, H, W), in the same memory: channels last."""
    return x.unflatten(1, tuple(size)).permute(0, 3, 1, 2)


def to_tokens(x: Tensor) -> Tensor:
    """A map (B, C, H, W) as tokens (B, N, C)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
