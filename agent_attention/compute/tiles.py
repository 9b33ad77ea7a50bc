"""Agent attention in tiles that stay in a CPU's cache, forward and backward.

A tile is some rows of the map with all agents (FlashAttention's scheme, arXiv 2205.14135, with
matrix products as large as the cache allows). Nothing of the size agents x tokens exists at once,
and for the backward pass nothing of it is kept: the scores are computed again.

Shapes, of one sample: agents (n, h, d) and tokens (N, h, d), where tokens come before heads; scores
of a tile of T tokens (h, n, T). The factors of the bias are those of ``AgentBias``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from agent_attention.compute.bias import AgentBias
from agent_attention.compute.chunks import slabs

Gradients = tuple[Tensor | None, ...]
aten = torch.ops.aten


def gather_in_tiles(agents: Tensor, k: Tensor, v: Tensor, bias: AgentBias) -> Tensor:
    """Agents attend to all tokens: softmax(agents k^T / sqrt(d) + bias) v, (n, h, d)."""
    out: Tensor = _Gather.apply(agents, k, v, *bias)
    return out


def serve_in_tiles(q: Tensor, agents: Tensor, v: Tensor, bias: AgentBias) -> Tensor:
    """Tokens attend to all agents: softmax(q agents^T / sqrt(d) + bias^T) v, (N, h, d)."""
    out: Tensor = _Serve.apply(agents, q, v, *bias)
    return out


def fill_with_served(
    out: Tensor, q: Tensor, agents: Tensor, v: Tensor, bias: Sequence[Tensor]
) -> None:
    """Write what ``serve_in_tiles`` gives to ``out`` (N, h, d), which may be ``q`` itself."""
    for place, part in _tiles(bias, agents.shape[:2].numel()):
        weights = _over_agents(_scores(agents, q[part], bias, place))
        _set_product(out, part, weights.transpose(1, 2), v)


class _Gather(torch.autograd.Function):
    """Softmax over the tokens, of which no tile has all: sums are kept as they come in."""

    @staticmethod
    def forward(ctx: Any, agents: Tensor, k: Tensor, v: Tensor, *bias: Tensor) -> Tensor:
        n, heads, _ = agents.shape
        out = torch.zeros_like(agents, memory_format=torch.contiguous_format)
        largest = agents.new_full((heads, n, 1), -torch.inf)  # score so far
        total = agents.new_zeros(heads, n, 1)  # of exp(score - largest) so far
        for place, part in _tiles(bias, heads * n):
            scores = _scores(agents, k[part], bias, place)
            now = torch.maximum(largest, scores.amax(-1, keepdim=True))
            weights = scores.sub_(now).exp_()
            shrink = largest.sub_(now).exp_()
            largest = now
            total.mul_(shrink).add_(weights.sum(-1, keepdim=True))
            _by_head(out).mul_(shrink).baddbmm_(weights, _by_head(v[part]))
        _by_head(out).div_(total)
        ctx.save_for_backward(agents, k, v, *bias, out, largest.add_(total.log_()))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        agents, k, v, *bias, out, log_total = ctx.saved_tensors
        scores = _ScoreGradients(agents, k, bias, ctx.needs_input_grad)
        of_v = torch.empty_like(v) if ctx.needs_input_grad[2] else None
        mean = _by_head(grad * out).sum(-1, keepdim=True)  # (h, n, 1)
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            for place, part in _tiles(bias, 2 * mean.numel()):
                weights = _scores(agents, k[part], bias, place).sub_(log_total).exp_()
                _set_product(of_v, part, weights.transpose(1, 2), grad)
                slope = torch.bmm(_by_head(grad), _by_head(v[part]).transpose(1, 2))
                scores.add(place, part, slope.sub_(mean).mul_(weights))
        return scores.of_agents, scores.of_tokens, of_v, None, None, None, *scores.of_bias


class _Serve(torch.autograd.Function):
    """Softmax over the agents, of which each tile has all."""

    @staticmethod
    def forward(ctx: Any, agents: Tensor, q: Tensor, v: Tensor, *bias: Tensor) -> Tensor:
        ctx.save_for_backward(agents, q, v, *bias)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        fill_with_served(out, q, agents, v, bias)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Gradients:
        agents, q, v, *bias = ctx.saved_tensors
        scores = _ScoreGradients(agents, q, bias, ctx.needs_input_grad)
        of_v = torch.zeros_like(v) if ctx.needs_input_grad[2] else None
        with torch.autocast("cpu", enabled=False):  # as in the forward pass
            for place, part in _tiles(bias, 2 * agents.shape[:2].numel()):
                weights = _over_agents(_scores(agents, q[part], bias, place))
                _add_product(of_v, weights, grad[part])
                slope = torch.bmm(_by_head(v), _by_head(grad[part]).transpose(1, 2))
                aten._softmax_backward_data.out(slope, weights, 1, slope.dtype, grad_input=slope)
                scores.add(place, part, slope)
        return scores.of_agents, scores.of_tokens, of_v, None, None, None, *scores.of_bias


class _ScoreGradients:
    """Gradients of what the scores are made of, where needed, from those of tile after tile."""

    def __init__(
        self, agents: Tensor, tokens: Tensor, bias: Sequence[Tensor], needed: Sequence[bool]
    ) -> None:
        self.agents, self.tokens, self.bias = agents, tokens, bias
        self.of_agents = torch.zeros_like(agents) if needed[0] else None
        self.of_tokens = torch.empty_like(tokens) if needed[1] else None
        self.of_bias = [
            torch.zeros_like(x) if need else None
            for x, need in zip(bias[3:], needed[6:], strict=True)
        ]

    def add(self, place: slice, part: slice, slope: Tensor) -> None:
        """Take in the gradient (h, n, T) of the scores of a tile."""
        scale = self.agents.shape[-1] ** -0.5
        _add_product(self.of_agents, slope, self.tokens[part], scale)
        _set_product(self.of_tokens, part, slope.transpose(1, 2), self.agents, scale)
        of_down, of_level = self.of_bias
        if of_down is None and of_level is None:
            return
        rows, columns, across, *_ = self.bias
        base = _interpolate(rows.t(), columns.t(), slope).unflatten(2, (-1, across.shape[1]))
        if of_down is not None:
            of_down[:, :, place] = base @ across.t()
        if of_level is not None:
            of_level += base.sum(2, keepdim=True)


def _tiles(bias: Sequence[Tensor], width: int) -> Iterator[tuple[slice, slice]]:
    """Rows of the map and their tokens, ``width`` numbers being made for each token."""
    _, _, across, down, _ = bias
    columns = across.shape[1]
    for place in slabs(down.shape[2], width, columns):
        yield place, slice(place.start * columns, place.stop * columns)


def _scores(agents: Tensor, tokens: Tensor, bias: Sequence[Tensor], place: slice) -> Tensor:
    """agents tokens^T / sqrt(d) + bias, for the tokens of some rows of the map: (h, n, T)."""
    rows, columns, across, down, level = bias
    base = (down[:, :, place] @ across).add_(level)  # (h, P, rows of the map, W)
    scores = _interpolate(rows, columns, base.flatten(2))
    scale = agents.shape[-1] ** -0.5
    return scores.baddbmm_(_by_head(agents), _by_head(tokens).transpose(1, 2), alpha=scale)


def _interpolate(rows: Tensor, columns: Tensor, x: Tensor) -> Tensor:
    """(h, i*j, T) to (h, a*b, T) by matrices (a, i) and (b, j): two products of thin matrices."""
    heads, _, tokens = x.shape
    i, j = rows.shape[1], columns.shape[1]
    x = x.unflatten(1, (i, j)).flatten(0, 1)  # (h*i, j, T)
    x = torch.bmm(columns.expand(len(x), -1, -1), x)  # (h*i, b, T)
    x = torch.bmm(rows.expand(heads, -1, -1), x.view(heads, i, -1))  # (h, a, b*T)
    return x.view(heads, -1, tokens)


def _over_agents(scores: Tensor) -> Tensor:
    """Softmax over the agents of (h, n, T), in the same memory."""
    weights: Tensor = aten._softmax.out(scores, 1, False, out=scores)
    return weights


def _set_product(
    out: Tensor | None, part: slice, left: Tensor, right: Tensor, scale: float = 1.0
) -> None:
    """out[part] = scale * left right, for left (h, T, n) and right (n, h, d)."""
    if out is not None:
        _by_head(out[part]).baddbmm_(left, _by_head(right), beta=0, alpha=scale)


def _add_product(out: Tensor | None, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """out += scale * left right, for left (h, n, T) and right (T, h, d)."""
    if out is not None:
        _by_head(out).baddbmm_(left, _by_head(right), alpha=scale)


def _by_head(x: Tensor) -> Tensor:
    """(t, h, d) as (h, t, d), in the same memory."""
    return x.transpose(0, 1)
