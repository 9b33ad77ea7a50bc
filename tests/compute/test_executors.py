"""Every executor of every mixer and block equals its definition, in values and gradients.

The definition is what runs with ``using(way="plain")``; tests/mixers writes it out once more.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import (
    SMALL_BACKBONES,
    Largest,
    agent_attention,
    normal,
    seed_weights,
    seeded_input,
    tokens,
    weighted,
)
from torch import Tensor, nn

from agent_attention.backbones import lean
from agent_attention.backbones.block import Block
from agent_attention.compute.attend import attend, attend_plain
from agent_attention.compute.bias import AgentBias
from agent_attention.compute.chunks import row_chunks
from agent_attention.compute.guard import using
from agent_attention.compute.norm_mlp import add_norm_mlp
from agent_attention.layers import DropPath, Mlp
from agent_attention.mixers import MIXERS, Mixer, build_mixer

Pair = tuple[int, int]
WAYS: dict[str, dict[str, Any]] = {
    "fused": {"way": "fused"},
    "kept": {"way": "kept"},
    "tiled": {"way": "tiled"},
    "tiled, four tokens a chunk": {"way": "tiled", "chunk": 4},
    "chosen": {},
}
EXACT = {"rtol": 1e-10, "atol": 1e-10}  # in float64
CLOSE = {"rtol": 2e-5, "atol": 2e-5}  # in float32
close = torch.testing.assert_close
ways = pytest.mark.parametrize("way", WAYS)
on_cpu = pytest.mark.on_cpu


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return EXACT if dtype == torch.float64 else CLOSE


def same(function: Callable[[], Tensor], leaves: list[Tensor], settings: dict[str, Any]) -> None:
    """What a function gives, and the gradients of its leaves, are those of the definition."""
    found, wanted = [], []
    for into, changes in ((found, settings), (wanted, {"way": "plain"})):
        with using(**changes):
            out = function()
            into += [out, *torch.autograd.grad(weighted([out]), leaves, materialize_grads=True)]
    close(found, wanted, **tolerance(leaves[0].dtype))


# --- attention


def numbers(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return normal(seed, shape).to(dtype).requires_grad_()


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


MIXER_CASES: dict[str, Callable[[], Mixer]] = {
    "agent": agent_attention,
    "agent, joint projection": lambda: agent_attention(joint_qkv=True, agent_shape=(4, 5)),
    "agent, no bias": lambda: agent_attention(agent_bias=False),
    "agent, no detail": lambda: agent_attention(detail=False),
    "agent, nothing but agents": lambda: agent_attention(agent_bias=False, detail=False),
    "agent, projections without bias": lambda: agent_attention(qkv_bias=False),
    "softmax": lambda: build_mixer("softmax", 8, 2),
    "reduced": lambda: build_mixer("reduced", 8, 2, sr_ratio=2),
    "reduced by 1": lambda: build_mixer("reduced", 8, 2),
    "windows": lambda: build_mixer("windows", 8, 2, window=3),
    "windows, shifted": lambda: build_mixer("windows", 8, 2, window=3, shift=1),
    "stripes": lambda: build_mixer("stripes", 8, 2, window=3),
    "focused": lambda: build_mixer("focused", 8, 2, table_shape=(7, 7)),
    "focused, reduced keys": lambda: build_mixer("focused", 8, 2, table_shape=(8, 8), reduction=2),
    "norm": lambda: build_mixer("norm", 8, 2),
    "norm, elu and detail": lambda: build_mixer("norm", 8, 2, kernel="elu", detail=True),
    "diag": lambda: build_mixer("diag", 8, 2, window=3),
    "diag, relu": lambda: build_mixer("diag", 8, 2, window=4, kernel="relu"),
    "aft_full": lambda: build_mixer("aft_full", 8, 2, table_shape=(7, 7), rank=4),
    "aft_local": lambda: build_mixer("aft_local", 8, 1, table_shape=(7, 7), rank=4, window=3),
    "aft_conv": lambda: build_mixer("aft_conv", 8, 2, kernel=5),
    "aft_conv, a head a channel": lambda: build_mixer("aft_conv", 8, 8, kernel=3),
    "aft_simple": lambda: build_mixer("aft_simple", 8, 1, joint_qkv=True),
}
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


# --- blocks in inference


def block_of(name: str, dtype: torch.dtype) -> Block:
    block = Block(8, MIXER_CASES[name](), 24, drop=0.1, drop_path=0.2, eps=1e-6)
    return seed_weights(block).to(dtype).eval()


@on_cpu
@mixers
@torch.no_grad()
def test_blocks_in_little_memory(name: str) -> None:
    for dtype, size, batch in [
        (torch.float32, (5, 6), 2),
        (torch.float64, (9, 4), 0),
        (torch.float64, (2, 13), 1),
    ]:
        blocks = nn.ModuleList([block_of(name, dtype) for _ in range(3)])
        x = tokens(size, batch=batch).to(dtype)
        copy, wanted = x.clone(), x
        with using(way="plain"):
            assert not lean.takes(blocks, x)
            for block in blocks:
                wanted = block(wanted, size)
        for chunk in (4, 1 << 21):
            with using(way="tiled", chunk=chunk):
                assert lean.takes(blocks, x)
                found = lean.run(blocks, x, size)
                again = lean.run(blocks, x, size)
            close([found, again], [wanted, wanted], **tolerance(dtype))
            assert torch.equal(x, copy)  # the caller's


@on_cpu
@torch.no_grad()
def test_tokens_in_any_memory_order_are_taken() -> None:
    blocks, size = nn.ModuleList([block_of("agent", torch.float64)]), (5, 6)
    x = tokens(size).double()
    strided = x.transpose(0, 1).contiguous().transpose(0, 1)
    with using(way="tiled"):
        close(lean.run(blocks, strided, size), lean.run(blocks, x, size), **EXACT)


@pytest.mark.parametrize("family", SMALL_BACKBONES)
@torch.no_grad()
def test_maps_in_little_memory(family: str) -> None:
    model, x = SMALL_BACKBONES[family]().eval().double(), seeded_input(2, 70, 99).double()
    copy = x.clone()
    with using(way="plain"):
        wanted = model(x)
    for changes in WAYS.values():
        with using(**changes):
            close(model(x), wanted, **EXACT)
    assert torch.equal(x, copy)


# --- blocks in training


@on_cpu
@ways
@mixers
def test_blocks_in_training(name: str, way: str) -> None:
    for rate, batch in ((0.0, 2), (0.5, 4), (0.0, 0)):
        block = Block(8, MIXER_CASES[name](), 24, drop=0.0, drop_path=rate, eps=1e-3)
        block, size = seed_weights(block).double(), (5, 6)
        x = tokens(size, batch=batch).double().requires_grad_()

        def run(block: Block = block, x: Tensor = x, size: Pair = size) -> Tensor:
            torch.manual_seed(1)
            out: Tensor = block(x, size)
            return out

        same(run, [x, *block.parameters()], WAYS[way])


def test_the_layers_around_a_mixer_keep_neither_norm_nor_sum() -> None:
    block, x = block_of("agent", torch.float64).requires_grad_(), tokens((32, 32)).double()
    kept: dict[str, int] = {}
    for way in ("tiled", "plain"):
        shapes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, shapes=shapes: shapes.append(t.shape.numel()) or t, lambda t: t
        ), using(way=way, kept=0):
            block(x.clone().requires_grad_(), (32, 32))
        kept[way] = sum(count for count in shapes if count >= x.numel())
    assert kept["tiled"] <= 0.5 * kept["plain"]


@on_cpu
@pytest.mark.parametrize("frozen", ["norm1", "attn.q", "attn.kv", "attn.proj", "mlp", "x"])
def test_blocks_with_frozen_parts(frozen: str) -> None:
    block = Block(8, MIXER_CASES["agent"](), 24, drop=0.0, drop_path=0.0, eps=1e-3)
    block, x = seed_weights(block).double(), tokens((5, 6)).double()
    x.requires_grad_(frozen != "x")
    if frozen != "x":
        block.get_submodule(frozen).requires_grad_(False)
    leaves = [t for t in (x, *block.parameters()) if t.requires_grad]
    same(lambda: block(x, (5, 6)), leaves, {"way": "tiled"})


# --- layers


def mlp_layers(drop: float = 0.0, rate: float = 0.0) -> nn.ModuleList:
    layers = nn.ModuleList([nn.LayerNorm(8, eps=1e-3), Mlp(8, 24, drop), DropPath(rate)])
    return seed_weights(layers).double()


def add_fed(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """What a block makes of them, with the same random numbers each time."""
    norm, mlp, drop_path = layers
    torch.manual_seed(1)
    out = add_norm_mlp(norm, mlp, drop_path, x)
    return x + drop_path(mlp(norm(x))) if out is None else out


@on_cpu
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kept", [0, 1 << 23])
@pytest.mark.parametrize("chunk", [4, 1 << 21])
def test_the_mlp_in_chunks(training: bool, kept: int, chunk: int) -> None:
    layers = mlp_layers(rate=0.5).train(training)
    x = numbers((3, 7, 8), 1)
    leaves = [x, *layers.parameters()]
    same(lambda: add_fed(layers, x), leaves, {"chunk": chunk, "kept": kept})
    with using(chunk=chunk, kept=kept):
        function = type(add_fed(layers, x).grad_fn.next_functions[0][0])  # type: ignore[union-attr]
    assert "NormMlp" in function.__name__


@on_cpu
def test_a_large_hidden_layer_is_never_made_of_all_tokens() -> None:
    layers = mlp_layers()
    x = tokens((32, 32)).double().requires_grad_()
    shapes: list[int] = []

    def keep(t: Tensor) -> Tensor:
        shapes.append(t.numel())
        return t

    for kept, hidden in ((2 * 32 * 32 * 24 - 1, False), (2 * 32 * 32 * 24, True)):
        shapes.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), using(kept=kept):
            add_fed(layers, x)
        assert (2 * 32 * 32 * 24 in shapes) == hidden


def test_the_mlp_drops_in_training_only() -> None:
    layers = mlp_layers(drop=0.5).train()
    norm, mlp, _ = layers
    x = numbers((5, 6, 8), 1)
    found = add_fed(layers, x)
    torch.manual_seed(1)
    assert torch.equal(found, x + mlp(norm(x)))
    mlp.eval()
    close(add_fed(layers, x), x + mlp(norm(x)), **EXACT)
    assert not torch.allclose(add_fed(layers, x), found)


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
