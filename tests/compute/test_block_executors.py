"""Every executor of blocks and their layers equals its definition, in values and gradients."""

from typing import Any

import pytest
import torch
from executor_cases import EXACT, MIXER_CASES, WAYS, Pair, numbers, same, tolerance
from helpers import SMALL_BACKBONES, seed_weights, seeded_input, tokens
from torch import Tensor, nn

from agent_attention.backbones import lean
from agent_attention.backbones.block import Block
from agent_attention.compute.guard import using
from agent_attention.compute.norm_mlp import add_norm_mlp
from agent_attention.layers import DropPath, Mlp

close = torch.testing.assert_close
ways = pytest.mark.parametrize("way", WAYS)
mixers = pytest.mark.parametrize("name", MIXER_CASES)
on_cpu = pytest.mark.on_cpu


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
        with (
            torch.autograd.graph.saved_tensors_hooks(
                lambda t, shapes=shapes: shapes.append(t.shape.numel()) or t, lambda t: t
            ),
            using(way=way, kept=0),
        ):
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


@on_cpu
@pytest.mark.parametrize("name", ["mix", "feed"])
@pytest.mark.parametrize("where", ["subclass", "class", "block"])
def test_methods_of_ones_own_are_called(
    name: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def own(*args: Any) -> Tensor:
        calls.append(args)
        return torch.zeros((), dtype=torch.float64)

    kind = type("Own", (Block,), {name: own} if where == "subclass" else {})
    block = kind(8, MIXER_CASES["agent"](), 24, drop=0.0, drop_path=0.0, eps=1e-3).double()
    if where == "class":
        monkeypatch.setattr(Block, name, own)
    elif where == "block":
        monkeypatch.setattr(block, name, own)
    block(tokens((5, 6)).double(), (5, 6))
    assert len(calls) == 1
