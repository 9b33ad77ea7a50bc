"""ToMe's clusters of similar tokens (arXiv 2210.09461, 2303.17604), which AgentSD makes agents of.

A map (H, W) has a target in each cell; all other tokens are sources, and the most similar of them
are averaged into their nearest targets. Shapes: tokens (B, h, N, d) or (B, N, C), N = H*W.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from agent_attention.arguments import Pair
from agent_attention.compute.attend import attend
from agent_attention.swap.landmarks import split_extra


@dataclass(frozen=True)
class Clusters:
    """How tokens are clustered.

    Args:
        cell: side of the cells with one target each.
        agent_ratio: part of the tokens that is merged for agents: n = N - agent_ratio * N, and at
            least a target a cell.
        ratio: part that is merged for queries, keys and values; 0 leaves all.
        seed: of the generator, of its own, that chooses the targets, which is always started anew.
            Batches of an odd size take the first token of each cell, as in ToMeSD; so does None.
    """

    cell: int = 4
    agent_ratio: float = 0.95
    ratio: float = 0.0
    seed: int | None = 0

    def match(self, tokens: Tensor, size: Pair) -> "Matching":
        """Match tokens (B, N, C) of a map of ``size`` by their cosine similarity."""
        seed = None if tokens.shape[0] % 2 else self.seed
        targets, sources = (x.to(tokens.device) for x in choose_targets(size, self.cell, seed))
        unit = torch.nn.functional.normalize(tokens.detach(), dim=-1)
        similarity, nearest = (unit[:, sources] @ unit[:, targets].mT).max(-1)
        order = similarity.argsort(-1, descending=True)
        return Matching(targets, sources, nearest, order)


@lru_cache(maxsize=16)
def choose_targets(size: Pair, cell: int, seed: int | None) -> tuple[Tensor, Tensor]:
    """Places of the targets, one in each whole cell, and of all other tokens."""
    height, width = size
    rows, columns = max(1, height // cell), max(1, width // cell)
    tall, wide = min(cell, height), min(cell, width)
    within = torch.zeros(rows, columns, dtype=torch.long)
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        within = torch.randint(tall * wide, (rows, columns), generator=generator)
    y = torch.arange(rows).unsqueeze(1) * cell + within // wide
    x = torch.arange(columns) * cell + within % wide
    is_target = torch.zeros(height * width, dtype=torch.bool)
    is_target[(y * width + x).flatten()] = True
    return is_target.nonzero().flatten(), (~is_target).nonzero().flatten()


@dataclass(frozen=True)
class Matching:
    """Which source goes with which target, the most similar sources first."""

    targets: Tensor  # (D,) places on the map
    sources: Tensor  # (N - D,)
    nearest: Tensor  # (B, N - D), to each source the number of its target
    order: Tensor  # (B, N - D), numbers of sources

    def count(self, ratio: float) -> int:
        """Sources that are merged if it is this part of all tokens."""
        sources = len(self.sources)
        return min(sources, int(ratio * (sources + len(self.targets))))

    def merge(self, x: Tensor, count: int) -> Tensor:
        """Tokens (B, h, N, d), ``count`` of them averaged into targets: (B, h, N - count, d)."""
        sources, targets = x[:, :, self.sources], x[:, :, self.targets]
        merged, kept = self._split(count, x)
        into = self._targets_of(count, x)
        found = targets.scatter_reduce(2, into, sources.gather(2, merged), "mean")
        return torch.cat([sources.gather(2, kept), found], 2)

    def unmerge(self, x: Tensor, count: int) -> Tensor:
        """Merged tokens (B, h, N - count, d) copied to all their places: (B, h, N, d)."""
        kept = len(self.sources) - count
        sources = x.new_empty(*x.shape[:2], len(self.sources), x.shape[-1])
        merged_at, kept_at = self._split(count, x)
        sources = sources.scatter(2, kept_at, x[:, :, :kept])
        targets = x[:, :, kept:]
        sources = sources.scatter(2, merged_at, targets.gather(2, self._targets_of(count, x)))
        out = x.new_empty(*x.shape[:2], x.shape[2] + count, x.shape[-1])
        out[:, :, self.targets], out[:, :, self.sources] = targets, sources
        return out

    def _split(self, count: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the sources that are merged, and of the others, for all heads and channels."""
        return _for_all(self.order[:, :count], x), _for_all(self.order[:, count:], x)

    def _targets_of(self, count: int, x: Tensor) -> Tensor:
        """Numbers of the targets that sources are merged into."""
        return _for_all(self.nearest.gather(1, self.order[:, :count]), x)


def _for_all(numbers: Tensor, x: Tensor) -> Tensor:
    """(B, K) as (B, h, K, d), for tokens x."""
    return numbers[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[-1])


def metric_of(k: Tensor, tokens: Tensor | None, extra: int) -> Tensor:
    """What is compared, (B, N, C): a layer's input where it is known, else its keys."""
    if tokens is not None and tokens.shape[1] == k.shape[2]:
        return tokens[:, extra:]
    return k[:, :, extra:].transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class MergedSoftmax:
    """Softmax attention of merged tokens: ToMe for Stable Diffusion (arXiv 2303.17604).

    O = unmerge(σ(s Q̂ K̂ᵀ) V̂), Q̂, K̂, V̂ = merge(Q), merge(K), merge(V). What is merged are projected
    tokens, which gives the numbers of merging before the projections.

    Args:
        clusters: with their ``ratio``.
    """

    clusters: Clusters = Clusters(cell=2, ratio=0.5)
    takes_tokens = True

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        size: Pair,
        extra: int = 0,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """The equation."""
        match = self.clusters.match(metric_of(k, tokens, extra), size)
        count = match.count(self.clusters.ratio)
        q, k, v = (merge_map(match, x, count, extra) for x in (q, k, v))
        return unmerge_map(match, attend(q, k, v), count, extra)


def merge_map(match: Matching, x: Tensor, count: int, extra: int) -> Tensor:
    """Merge tokens of the map; those in front of it stay."""
    front, on_map = split_extra(x, extra)
    merged = match.merge(on_map, count) if count else on_map
    return torch.cat([front, merged], 2) if extra else merged


def unmerge_map(match: Matching, x: Tensor, count: int, extra: int) -> Tensor:
    """Copy merged tokens to all their places."""
    front, on_map = split_extra(x, extra)
    whole = match.unmerge(on_map, count) if count else on_map
    return torch.cat([front, whole], 2) if extra else whole
