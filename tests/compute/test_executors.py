"""Every executor of every mixer and block equals its definition, in values and gradients.

The definition is what runs with ``using(way="plain")``; tests/mixers writes it out once more.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from executor_cases import EXACT, MIXER_CASES, WAYS, Pair, numbers, same
from helpers import (
    Largest,
    agent_attention,
    seed_weights,
    tokens,
    weighted,
)
from torch import Tensor

from agent_attention.compute.attend import attend, attend_plain
from agent_attention.compute.bias import AgentBias
from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import using
from agent_attention.mixers import MIXERS

close = torch.testing.assert_close
ways = pytest.mark.parametrize("way", WAYS)
on_cpu = pytest.mark.on_cpu


# --- attention


def agent_case(
    first: str, grid: Pair, size: Pair, batch: int = 1, heads: int = 2, d: int = 5, p: int = 3
) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """Attention between agents and tokens with the bias of three tables, and its leaves."""
    n, count = grid[0] * grid[1], size[0] * size[1]
    queries, keys = (n, count) if first == "agents" else (count, n)
    q, k, v = (numbers((batch, heads, c, d), i) for i, c in enumerate((queries, keys, keys)))
    shapes = ((heads, p * p, 7, 7), (heads, p * p, 4, 1), (heads, p * p, 1, 6))
    tables = [numbers(shape, 3 + i) for i, shape in enumerate(shapes)]

    def run(**options: Any) -> Tensor:
        return attend(q, k, v, AgentBias(*tables, size, grid, first == "tokens"), **options)

    return run, [q, k, v, *tables]


firsts = pytest.mark.parametrize("first", ["agents", "tokens"])


AGENT_CASES = [  # grid, size, batch, heads
    ((1, 3), (7, 5), 0, 2),
    ((1, 3), (7, 5), 3, 2),
    ((4, 2), (2, 2), 1, 1),
    ((3, 3), (4, 6), 3, 1),
    ((1, 1), (1, 1), 1, 3),
    ((2, 5), (9, 1), 1, 3),
]


@ways
@firsts
def test_agent_attention_in_every_way(way: str, first: str) -> None:
    for case in AGENT_CASES:
        same(*agent_case(first, *case), WAYS[way])


by_hand = pytest.mark.parametrize("way", ["kept", "tiled"])


@on_cpu
@by_hand
@firsts
def test_gradients_by_hand_are_finite_differences(first: str, way: str) -> None:
    run, leaves = agent_case(first, (1, 2), (2, 3), batch=2, d=2, p=1)
    with using(chunk=4):
        assert torch.autograd.gradcheck(lambda *_: run(way=way), leaves)


@by_hand
@firsts
@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (3, 4, 5), (0, 1, 3, 4, 5)])
def test_gradients_are_made_where_they_are_needed_only(
    first: str, way: str, frozen: tuple[int, ...]
) -> None:
    run, leaves = agent_case(first, (1, 3), (2, 5))
    wanted = torch.autograd.grad(weighted([run(way="plain")]), leaves)
    for i in frozen:
        leaves[i].requires_grad_(False)
    weighted([run(way=way)]).backward()
    for i, (leaf, gradient) in enumerate(zip(leaves, wanted, strict=True)):
        close(leaf.grad, None if i in frozen else gradient, **EXACT)


@firsts
@pytest.mark.parametrize("way", ["fused", "tiled"])
def test_large_scores_in_float32_are_finite_and_exact(first: str, way: str) -> None:
    run, leaves = agent_case(first, (2, 3), (4, 9), batch=2, d=16)
    with torch.no_grad():
        for leaf in leaves:
            leaf.mul_(30)
        wanted = run(way="plain")
        for leaf in leaves:
            leaf.data = leaf.data.float()
    with using(chunk=64):
        out = run(way=way)
        out.square().sum().backward()
    close(out.double(), wanted, rtol=1e-3, atol=1e-3)
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


@on_cpu
@firsts
def test_the_tiled_way_is_taken_for_large_maps_on_a_cpu_alone(first: str) -> None:
    def function_of(run: Callable[..., Tensor], **options: Any) -> str:
        name = run(**options).grad_fn
        while "Function" not in type(name).__name__ and name.next_functions:  # type: ignore[union-attr]
            if "Aggregate" in type(name).__name__ or "Broadcast" in type(name).__name__:
                return "tiled"
            name = name.next_functions[0][0]  # type: ignore[union-attr]
        return "other"

    small, large = agent_case(first, (2, 2), (4, 4))[0], agent_case(first, (24, 24), (32, 32))[0]
    assert function_of(large) == "tiled" and function_of(small) == "other"
    assert function_of(small, way="tiled") == "tiled" and function_of(large, dropout=0.1) == "other"
    with torch.autocast("cpu", torch.bfloat16):
        assert function_of(large) == "other"
    with Largest():  # who counts operations counts those of the definition
        assert function_of(large) == "other"


@on_cpu
@firsts
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_few_scores_of_half_precision_are_in_float32(first: str, dtype: torch.dtype) -> None:
    run, leaves = agent_case(first, (2, 2), (4, 4), batch=2)
    for leaf in leaves:
        leaf.data = leaf.data.to(dtype).float()
    wanted = run().to(dtype)
    for leaf in leaves[:3]:
        leaf.data = leaf.data.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        close(run(), wanted, rtol=0, atol=0)


def test_a_plain_bias_may_be_broadcast() -> None:
    q, k, v = (numbers((2, 3, 5, 4), i) for i in range(3))
    for shape in ((3, 5, 5), (2, 3, 5, 5), (5, 5)):
        bias = numbers(shape, 7)
        same(lambda b=bias: attend(q, k, v, b), [q, k, v, bias], {"way": "fused"})  # type: ignore[misc]
    same(lambda: attend(q, k, v), [q, k, v], {"way": "fused"})


@firsts
@pytest.mark.parametrize("way", ["plain", "fused"])
def test_dropout_keeps_the_mean(first: str, way: str) -> None:
    run, leaves = agent_case(first, (1, 3), (2, 5), batch=4000)
    with torch.no_grad():
        for leaf in leaves[:3]:
            leaf.copy_(leaf[:1].expand_as(leaf).clone())
        wanted, draws = run()[0], run(dropout=0.3, way=way)
    error = draws.std(0) / len(draws) ** 0.5
    assert draws.std(0).mean() > 0.1
    assert ((draws.mean(0) - wanted).abs() < 5 * error).all()


@on_cpu
def test_memory_for_the_result_may_be_that_of_the_queries() -> None:
    run, leaves = agent_case("tokens", (2, 3), (9, 7), batch=2)
    with torch.no_grad(), using(chunk=64):
        wanted = run(way="plain")
        found = run(way="tiled", out=leaves[0].detach())
    assert found.data_ptr() == leaves[0].data_ptr()
    close(found, wanted, **EXACT)


# --- mixers


mixers = pytest.mark.parametrize("name", MIXER_CASES)


def test_every_mixer_is_tested() -> None:
    assert {name.partition(",")[0].partition(" ")[0] for name in MIXER_CASES} == MIXERS.keys()


@ways
@mixers
def test_every_mixer_in_every_way(name: str, way: str) -> None:
    mixer = seed_weights(MIXER_CASES[name]())
    for dtype, size, batch in [
        (torch.float32, (5, 6), 2),
        (torch.float64, (7, 7), 1),
        (torch.float64, (9, 4), 0),
        (torch.float64, (2, 13), 2),
    ]:
        mixer.to(dtype)
        x = tokens(size, batch=batch).to(dtype).requires_grad_()
        same(lambda x=x, size=size: mixer(x, size), [x, *mixer.parameters()], WAYS[way])  # type: ignore[misc]


def test_agent_attention_without_bias_and_detail_has_no_keys_of_them() -> None:
    keys = set(agent_attention(agent_bias=False, detail=False).state_dict())
    assert keys == {f"{n}.{kind}" for n in ("q", "kv", "proj") for kind in ("weight", "bias")}


@on_cpu
@pytest.mark.parametrize("joint", [False, True])
def test_nothing_of_queries_times_keys_is_ever_made(joint: bool) -> None:
    attn, size = agent_attention(agent_shape=(16, 16), joint_qkv=joint), (64, 64)
    x = tokens(size, batch=1).requires_grad_()
    with using(way="tiled", chunk=1 << 14), Largest() as largest:
        attn(x, size).sum().backward()
    # y has 9 * 8 / 8 = 9 numbers of a base agent for a row of the map; N*n is 32 times x
    assert x.numel() <= largest.numel <= 3 * x.numel()


def test_chunks_are_equal_and_cover_every_row() -> None:
    with using(chunk=4):
        assert list(row_chunks(7, 16, columns=2))[:2] == [slice(0, 2), slice(2, 4)]
        assert len(list(row_chunks(7, 16, columns=5))) == 7  # a row at least
        assert list(row_chunks(37, 16))[-1] == slice(36, 37)
    assert list(row_chunks(0, 16)) == [] and list(row_chunks(5, 16)) == [slice(0, 5)]


def test_the_definition_is_the_equation() -> None:
    q, k, v = (numbers((1, 1, 3, 2), i) for i in range(3))
    weights = (q @ k.mT / 2**0.5).exp()
    close(attend_plain(q, k, v), weights / weights.sum(-1, keepdim=True) @ v, **EXACT)
