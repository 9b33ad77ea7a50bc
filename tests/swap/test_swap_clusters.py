"""ToMe's clusters, against the matching written out, and AgentSD's layer against its order."""

import pytest
import torch
from helpers import normal
from torch import Tensor
from torch.nn import functional as F

from agent_attention.swap import Agent, Clusters, MergedSoftmax
from agent_attention.swap.clusters import choose_targets

SIZE, HEADS, D = (8, 10), 2, 4
COUNT, DIM = SIZE[0] * SIZE[1], HEADS * D


def in_heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (HEADS, D)).transpose(1, 2)


def clusters_of(tokens: Tensor, cell: int, count: int, seed: int | None) -> list[list[int]]:
    """Of one sample: the places that each merged token stands for, in any order."""
    targets, sources = (x.tolist() for x in choose_targets(SIZE, cell, seed))
    near = F.cosine_similarity(tokens[sources].unsqueeze(1), tokens[targets].unsqueeze(0), dim=-1)
    best = near.max(1)
    order = sorted(range(len(sources)), key=lambda i: -best.values[i].item())
    found = {target: [target] for target in targets}
    for i in order[:count]:
        found[targets[int(best.indices[i])]].append(sources[i])
    return [*found.values(), *([sources[i]] for i in order[count:])]


@pytest.mark.parametrize(("cell", "count"), [(2, 0), (2, 17), (2, 60), (4, 50), (4, 76)])
def test_the_most_similar_are_averaged(cell: int, count: int) -> None:
    tokens, x = (normal(i, (2, COUNT, DIM)).double() for i in (1, 2))
    match = Clusters(cell=cell).match(tokens, SIZE)
    merged = match.merge(in_heads(x), count).transpose(1, 2).flatten(2)
    for b in range(2):
        parts = clusters_of(tokens[b], cell, count, 0)
        wanted = torch.stack([x[b, part].mean(0) for part in parts])
        assert merged[b].shape == wanted.shape
        key = lambda rows: rows[rows[:, 0].argsort()]  # noqa: E731
        torch.testing.assert_close(key(merged[b]), key(wanted))
        whole = match.unmerge(match.merge(in_heads(x), count), count).transpose(1, 2).flatten(2)
        for part in parts:
            torch.testing.assert_close(whole[b, part], x[b, part].mean(0).expand(len(part), -1))


def test_targets_are_seeded_one_in_each_cell() -> None:
    targets, sources = choose_targets(SIZE, 4, 0)
    cells = [(t // SIZE[1] // 4, t % SIZE[1] // 4) for t in targets.tolist()]
    assert sorted(cells)[:4] == [(0, 0), (0, 1), (1, 0), (1, 1)] and len(cells) == 4
    assert sorted([*targets.tolist(), *sources.tolist()]) == list(range(COUNT))
    state = torch.get_rng_state()
    again, _ = choose_targets.__wrapped__(SIZE, 4, 0)
    assert torch.equal(again, targets) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(choose_targets(SIZE, 4, 1)[0], targets)
    assert choose_targets(SIZE, 4, None)[0].tolist() == [0, 4, 40, 44]
    odd = Clusters(cell=4).match(normal(1, (1, COUNT, DIM)), SIZE)
    assert odd.targets.tolist() == [0, 4, 40, 44]  # as published, of batches of odd size


@pytest.mark.parametrize("ratio", [0.0, 0.25])
def test_agents_by_clusters_are_those_of_agent_sd(ratio: float) -> None:
    """Merged before the projections, as AgentSD does, and attended to in its order."""
    tokens, normed = (normal(i, (2, COUNT, DIM)).double() for i in (1, 2))
    weights = [normal(i, (DIM, DIM)).double() for i in (3, 4, 5)]
    q, k, v = (in_heads(normed @ w) for w in weights)
    clusters = Clusters(cell=4, agent_ratio=0.9, ratio=ratio)
    found = Agent(clusters=clusters)(q, k, v, SIZE, 0, tokens).transpose(1, 2).flatten(2)
    for b in range(2):
        x, y = (
            (torch.stack([normed[b, p].mean(0) for p in parts]), parts)
            for parts in (clusters_of(tokens[b], 4, int(r * COUNT), 0) for r in (ratio, 0.9))
        )
        a, (mq, mk, mv) = y[0] @ weights[0], (x[0] @ w for w in weights)
        assert 2 * len(a) < len(mq)
        for h in range(HEADS):
            part = slice(h * D, h * D + D)
            scale = D**-0.5
            v_a = (a[:, part] @ mk[:, part].T * scale).softmax(-1) @ mv[:, part]
            out = (mq[:, part] @ a[:, part].T * scale**0.3).softmax(-1) @ v_a
            out = out + 0.075 * mv[:, part]
            for row, places in zip(out, x[1], strict=True):
                torch.testing.assert_close(found[b, places, part], row.expand(len(places), -1))


def test_too_many_agents_are_softmax_of_merged_tokens() -> None:
    q, k, v = (normal(i, (2, HEADS, COUNT + 1, D)) for i in range(3))
    agent = Agent(clusters=Clusters(cell=2, agent_ratio=0.5, ratio=0.3))
    found = agent(q, k, v, SIZE, 1)
    assert torch.equal(found, MergedSoftmax(Clusters(cell=2, ratio=0.3))(q, k, v, SIZE, 1))
    wanted = F.scaled_dot_product_attention(q, k, v)
    assert torch.equal(MergedSoftmax(Clusters(cell=2))(q, k, v, SIZE, 1), wanted)
    with pytest.raises(ValueError, match="as many keys as queries"):
        agent(q, k[:, :, :21], v[:, :, :21], SIZE, 1)
