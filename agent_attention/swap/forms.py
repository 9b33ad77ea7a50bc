"""Forms that take the place of softmax attention, with the projections of a trained model.

    Agent        O = σ(s₂ Q Aᵀ) σ(s A Kᵀ) V + κ V                     A = pool(Q)
    Nystrom      O = σ(s Q K̃ᵀ) [σ(s A K̃ᵀ)]⁺ σ(s A Kᵀ) V              A = pool(Q), K̃ = pool(K)
    PooledKeys   O = σ(s Q K̃ᵀ + log c) Ṽ                              K̃ = pool(K), Ṽ = pool(V)

σ is the softmax, s = d^(-1/2) the scale that the weights were trained with, c the keys in a cell.
Queries q are (B, h, T, d) with T = extra + N tokens, N = H*W those of the map; keys k and values v
(B, h, m, d), of the same tokens or of a map reduced R times in height and width; landmarks
(B, h, extra + n, d). Tokens without a place are landmarks of their own. With the map as its grid
Nystrom and PooledKeys are softmax attention; Agent is not: two softmaxes blur.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.compute.attend import attend, attention_weights
from agent_attention.compute.guard import is_recording
from agent_attention.compute.numerics import full_precision, without_autocast
from agent_attention.swap.clusters import Clusters, merge_map, metric_of, unmerge_map
from agent_attention.swap.landmarks import (
    Grid,
    grid_on,
    key_map,
    log_cell_sizes,
    pool_tokens,
    split_extra,
    spread,
)


class Form(Protocol):
    """What takes the place of softmax attention. Any function with these arguments is one.

    One with ``landmarks(size, keys)``, a pair, and ``pays(queries, keys, landmarks)``, a bool, is
    left out where it does not pay.
    """

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, size: Pair, extra: int) -> Tensor:
        """Queries (B, h, T, d), keys and values (B, h, m, d) -> (B, h, T, d)."""


@dataclass(frozen=True)
class Agent:
    """Agent attention as in AgentSD (arXiv 2312.08874, section 4.4), without bias and DWC.

    Args:
        grid: agents: a pair, a number, a ``GridRule``, or a function of the map's (H, W).
        scale2: e of s₂ = s^e in the second softmax. Below 1 it is sharper than the first: means of
            queries have flat scores.
        shortcut: κ.
        clusters: agents are means over clusters of similar tokens, in place of a grid's cells; with
            a ``ratio`` queries, keys and values are merged too, by the same clusters. Where agents
            are not fewer than half of the merged tokens, they are given softmax attention.
    """

    grid: Grid = (12, 12)
    scale2: float = 0.3
    shortcut: float = 0.075
    clusters: Clusters | None = None

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        size: Pair,
        extra: int = 0,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """The equation; ``tokens`` (B, T, C) are the layer's input, which clusters look at."""
        if self.clusters is not None:
            return self._by_clusters(q, k, v, size, extra, tokens)
        a = pool_tokens(q, size, grid_on(self.grid, size), extra)
        o = agent_attention(q, k, v, a, self.scale2)
        return torch.add(o, spread_values(v, size, extra), alpha=self.shortcut)

    def _by_clusters(
        self, q: Tensor, k: Tensor, v: Tensor, size: Pair, extra: int, tokens: Tensor | None
    ) -> Tensor:
        assert self.clusters is not None
        if q.shape[2] != k.shape[2]:
            raise ValueError("clusters= takes as many keys as queries: reduced keys have a grid")
        match = self.clusters.match(metric_of(k, tokens, extra), size)
        count = match.count(self.clusters.ratio)
        a = merge_map(match, q, match.count(self.clusters.agent_ratio), extra)
        q, k, v = (merge_map(match, x, count, extra) for x in (q, k, v))
        if 2 * a.shape[2] < q.shape[2]:
            o = torch.add(agent_attention(q, k, v, a, self.scale2), v, alpha=self.shortcut)
        else:
            o = attend(q, k, v)
        return unmerge_map(match, o, count, extra)

    @property
    def takes_tokens(self) -> bool:
        """Whether it is called with ``tokens``."""
        return self.clusters is not None

    def landmarks(self, size: Pair, keys: Pair) -> Pair | None:
        """The grid on a map of ``size``, whose keys are a map of size ``keys``."""
        return grid_on(self.grid, size) if self.clusters is None else None

    def pays(self, queries: int, keys: int, landmarks: int) -> bool:
        """Whether it takes fewer multiply-adds than softmax attention."""
        return 2 * (queries + keys) * landmarks < 2 * queries * keys


@dataclass(frozen=True)
class Nystrom:
    """Nyström attention (arXiv 2102.03902) with means of queries and keys as landmarks.

    Args:
        grid: landmarks, as for ``Agent``; at most the map of the keys.
        rcond: singular values of the inverted matrix below this part of the largest count as none.
        limit: where the inverse makes values so many times larger than V's largest, as with few
            landmarks it may, agent attention is computed instead, by sample and head.
        scale2: of that.
    """

    grid: Grid = (18, 18)
    rcond: float = 0.01
    limit: float = 4.0
    scale2: float = 0.3

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, size: Pair, extra: int = 0) -> Tensor:
        """The equation."""
        reduced = map_of_keys(size, k.shape[2] - extra)
        grid = self.landmarks(size, reduced)
        if grid == reduced:  # K̃ = K, so that the inverse cancels, but for its rounding
            return attend(q, k, v)
        a = pool_tokens(q, size, grid, extra)
        k_pool = pool_tokens(k, reduced, grid, extra)
        v_a = attend(a, k, v)
        v_pool = inverse(attention_weights(*full_precision(a, k_pool)), self.rcond, v_a)
        out = attend(q, k_pool, v_pool)
        largest = v_pool.abs().amax((2, 3), keepdim=True)
        held = largest <= self.limit * v.abs().amax((2, 3), keepdim=True)  # (B, h, 1, 1)
        if not is_recording() and bool(held.all()):
            return out
        return torch.where(held, out, agent_attention(q, k, v, a, self.scale2))

    def landmarks(self, size: Pair, keys: Pair) -> Pair:
        """The grid on a map whose keys are a map of size ``keys``."""
        return grid_on(self.grid, keys)

    def pays(self, queries: int, keys: int, landmarks: int) -> bool:
        """Whether it takes fewer multiply-adds than softmax attention, the inverse left aside."""
        return 2 * (queries + keys) * landmarks < 2 * queries * keys


@dataclass(frozen=True)
class PooledKeys:
    """Softmax attention to means of keys and values, each counted as often as keys are in it.

    As PVTv2-li and ToDo (arXiv 2402.13573) reduce keys.

    Args:
        grid: landmarks, as for ``Agent``; at most the map of the keys.
    """

    grid: Grid = (12, 12)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, size: Pair, extra: int = 0) -> Tensor:
        """The equation."""
        reduced = map_of_keys(size, k.shape[2] - extra)
        grid = self.landmarks(size, reduced)
        k_pool, v_pool = (pool_tokens(x, reduced, grid, extra) for x in (k, v))
        return attend(q, k_pool, v_pool, log_cell_sizes(reduced, grid, extra, q))

    def landmarks(self, size: Pair, keys: Pair) -> Pair:
        """The grid on a map whose keys are a map of size ``keys``."""
        return grid_on(self.grid, keys)

    def pays(self, queries: int, keys: int, landmarks: int) -> bool:
        """Whether it takes fewer multiply-adds than softmax attention."""
        return landmarks < keys


def agent_attention(q: Tensor, k: Tensor, v: Tensor, a: Tensor, scale2: float) -> Tensor:
    """σ(s₂ Q Aᵀ) σ(s A Kᵀ) V with s₂ = s^scale2: (B, h, T, d), of agents a (B, h, n, d)."""
    v_a = attend(a, k, v)  # (B, h, n, d)
    # the scale of ``attend`` is s: what s₂ differs from it by goes to the few agents
    return attend(q, a * q.shape[-1] ** ((1 - scale2) / 2), v_a)


def spread_values(v: Tensor, size: Pair, extra: int) -> Tensor:
    """V at the place of each query (B, h, T, d): where keys are reduced, that of its cell."""
    front, on_map = split_extra(v, extra)
    reduced = map_of_keys(size, on_map.shape[2])
    if tuple(reduced) == tuple(size):
        return v
    return torch.cat([front, spread(on_map, reduced, size)], 2)


def inverse(weights: Tensor, rcond: float, values: Tensor) -> Tensor:
    """[weights]⁺ values: (B, h, n, n) and (B, h, n, d) -> (B, h, n, d), in full precision."""
    with without_autocast(values):
        (full,) = full_precision(values)
        try:
            found = torch.linalg.pinv(weights, rcond=rcond) @ full
        except torch.linalg.LinAlgError:  # no convergence: as large as what is refused
            found = torch.full_like(full, torch.inf)
        return found.to(values.dtype)


def map_of_keys(size: Pair, keys: int) -> Pair:
    """The map that so many keys are of.

    Raises:
        ValueError: if the map of ``size`` is reduced to it by no whole number.
    """
    found = key_map(size, keys)
    if found is None:
        raise ValueError(f"{keys} keys are no map of {size[0]}x{size[1]} reduced by a whole number")
    return found


def takes_tokens(form: Any) -> bool:
    """Whether a form is to be called with ``tokens``, the layer's input (B, T, C)."""
    return bool(getattr(form, "takes_tokens", False))
