"""What depends on a map's size is made once a size, and never outlives the tables it is made of."""

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import (
    SMALL_BACKBONES,
    TABLES,
    agent_attention,
    seed_weights,
    seeded_input,
    small_pvt,
    tokens,
)
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from agent_attention import AgentPVT
from agent_attention.compute.guard import using
from agent_attention.compute.size_cache import SizeCache, cached, pure
from agent_attention.mixers import build_mixer
from agent_attention.mixers.class_token import ClassTokenAgentAttention

pytestmark = pytest.mark.usefixtures("always_tiles")

Pair = tuple[int, int]
SIZES: list[Pair] = [(5, 6), (6, 5), (9, 7)]
close = torch.testing.assert_close

# Of each module that keeps something: how to make it, and the table that the results belong to.
KINDS: dict[str, tuple[Callable[[], Any], str]] = {
    "agent": (agent_attention, "an_bias"),
    "window": (
        lambda: seed_weights(build_mixer("windows", 8, 2, window=3, shift=1)),
        "relative_position_bias_table",
    ),
    "position": (lambda: small_pvt(out_indices=(0,)), "pos_embed1"),
    "positions of keys": (
        lambda: seed_weights(build_mixer("focused", 8, 2, table_shape=(7, 7))),
        "positional_encoding",
    ),
    "agent with a class token": (
        lambda: seed_weights(build_mixer("agent", 8, 2, class_token=True, table_shape=(7, 7))),
        "ac_bias",
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def fresh(kind: str) -> Any:
    return KINDS[kind][0]().eval()


def outcome(model: nn.Module, size: Pair) -> Tensor:
    """Of an attention, or the first map of a backbone, on seeded numbers."""
    dtype = next(model.parameters()).dtype
    if isinstance(model, AgentPVT):
        return model(seeded_input(1, 8 * size[0], 8 * size[1]).to(dtype))[0]
    return model(tokens_for(model, size).to(dtype), size)


def tokens_for(model: nn.Module, size: Pair) -> Tensor:
    """Tokens of a map, with a class token in front where the module takes one."""
    x = tokens(size)
    takes = isinstance(model, ClassTokenAgentAttention)
    return torch.cat([x[:, :1], x], 1) if takes else x


def like_a_new_one(model: nn.Module, kind: str, size: Pair) -> None:
    """The outcome is that of a new model with the same weights."""
    new = fresh(kind).to(next(model.parameters()).dtype)
    new.load_state_dict(model.state_dict())
    close(outcome(model, size), outcome(new, size), rtol=0, atol=0)


def kept(model: nn.Module, kind: str) -> int:
    return cached.nbytes(model.get_parameter(KINDS[kind][1]))


# --- writes to the weights


def step(model: nn.Module, weight: nn.Parameter) -> None:
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=0.5).step()


def in_place(model: nn.Module, weight: nn.Parameter) -> None:
    with torch.no_grad():
        weight.mul_(2)


def load(model: nn.Module, weight: nn.Parameter, assign: bool = False) -> None:
    state = {k: 2 * v if v.is_floating_point() else v for k, v in model.state_dict().items()}
    model.load_state_dict(state, assign=assign)


def new_data(model: nn.Module, weight: nn.Parameter) -> None:
    weight.data = weight.data * 2


def one_channel(model: nn.Module, weight: nn.Parameter) -> None:
    weight.data[..., 0] += 5


def permuted(model: nn.Module, weight: nn.Parameter) -> None:
    """Any sum over the table stays as it is."""
    weight.data.copy_(weight.data.flatten().flip(0).view_as(weight))


def numpy_view(model: nn.Module, weight: nn.Parameter) -> None:
    weight.detach().numpy()[:] *= 2


CHANGES: dict[str, Callable[[nn.Module, nn.Parameter], Any]] = {
    "optimizer step": step,
    "in place": in_place,
    "load_state_dict": load,
    "load_state_dict(assign)": lambda model, weight: load(model, weight, assign=True),
    "p.data = new": new_data,
    "p.data.mul_": lambda model, weight: weight.data.mul_(2),
    "one channel of p.data": one_channel,
    "p.data permuted": permuted,
    "NumPy view": numpy_view,
    "initialised again": lambda model, weight: nn.init.normal_(weight),
    "double": lambda model, weight: model.double(),
    "bfloat16": lambda model, weight: model.to(torch.bfloat16),
    "float16 and back": lambda model, weight: model.half().float(),
}


@kinds
@pytest.mark.parametrize("change", CHANGES)
def test_no_write_to_a_weight_leaves_old_results(kind: str, change: str) -> None:
    model = fresh(kind)
    modes = [torch.no_grad, torch.inference_mode, torch.no_grad]
    before = []
    for mode, size in zip(modes, SIZES, strict=True):
        with mode():
            before.append(outcome(model, size))
    assert kept(model, kind)
    CHANGES[change](model, model.get_parameter(KINDS[kind][1]))
    for mode, size, old in zip(modes, SIZES, before, strict=True):
        with mode():
            like_a_new_one(model, kind, size)
            assert not torch.equal(outcome(model, size), old)


@pytest.mark.parametrize("name", TABLES)
@torch.no_grad()
def test_a_change_of_each_table_is_seen(name: str) -> None:
    model = fresh("agent")
    before = outcome(model, SIZES[0])
    model.get_parameter(name).data.mul_(2)
    assert not torch.equal(outcome(model, SIZES[0]), before)
    like_a_new_one(model, "agent", SIZES[0])


@torch.no_grad()
def test_another_agent_grid_is_seen() -> None:
    attn, x = agent_attention(agent_shape=(3, 4)), tokens((5, 6))
    attn(x, (5, 6))
    attn.agent_shape = (4, 3)
    close(attn(x, (5, 6)), agent_attention(agent_shape=(4, 3))(x, (5, 6)))


@torch.no_grad()
def test_modules_may_share_a_table() -> None:
    both = [build_mixer("windows", 8, 2, window=3, shift=shift) for shift in (1, 2)]
    seed_weights(nn.ModuleList(both))
    both[1].relative_position_bias_table = both[0].relative_position_bias_table
    x = tokens((5, 6))
    for _ in range(2):
        for mixer in both:
            found = mixer(x, (5, 6))
            with using(way="plain"):
                close(found, mixer(x, (5, 6)), rtol=1e-5, atol=1e-5)


@kinds
@torch.no_grad()
def test_tables_with_a_number_that_is_none_are_computed_each_time(kind: str) -> None:
    model = fresh(kind)
    model.get_parameter(KINDS[kind][1])[..., 0] = torch.nan
    for _ in range(2):
        assert outcome(model, SIZES[0]).isnan().any()


# --- once a size


def made(cache: SizeCache, table: Tensor, width: int) -> bool:
    """Ask for a float32 vector of these many numbers; whether it was made."""
    calls: list[int] = []

    def make() -> tuple[Tensor]:
        calls.append(width)
        return (torch.full((width,), float(width)),)

    (found,) = cache(make, [table], (width, 1))
    assert found.shape == (width,) and (found == width).all()
    return bool(calls)


def test_results_are_made_once_and_the_oldest_go_first() -> None:
    table = torch.ones(10)
    cache = SizeCache(most=4 * (100 + 3 * 10))
    assert [made(cache, table, width) for width in (30, 40, 20, 30)] == [True, True, True, False]
    assert cache.nbytes(table) == 4 * (90 + 3 * 10)
    assert made(cache, table, 25)  # 40 goes
    assert [made(cache, table, width) for width in (20, 30, 25)] == [False] * 3
    assert made(cache, table, 40)
    assert made(cache, table, 500) and made(cache, table, 500)  # larger than what may be kept
    table += 1
    assert made(cache, table, 25)


def test_results_go_with_their_table() -> None:
    cache, table = SizeCache(), torch.ones(10)
    made(cache, table, 30)
    assert len(cache._kept) == 1
    del table
    gc.collect()
    assert not cache._kept


@kinds
def test_what_is_kept_serves_and_does_not_disturb_training(kind: str) -> None:
    for mode in (torch.no_grad, torch.inference_mode):
        model, other, size = fresh(kind), fresh(kind), SIZES[1]
        with mode():
            outcome(model, size)
        for each in (model, other):
            outcome(each.train(), size).square().sum().backward()
        found, wanted = ([p.grad for p in each.parameters()] for each in (model, other))
        close(found, wanted, rtol=0, atol=0)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        x = tokens_for(model, size).requires_grad_()
        if kind != "position":
            model(x, size).sum().backward()  # a graph through what was kept


@kinds
def test_nothing_is_kept_where_gradients_are_wanted_or_the_definition_is(kind: str) -> None:
    model = fresh(kind)
    outcome(model, SIZES[0]).square().sum().backward()
    with torch.no_grad(), using(way="plain"):
        outcome(model, SIZES[0])
    assert not kept(model, kind)
    assert model.get_parameter(KINDS[kind][1]).grad.any()


@kinds
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
@torch.no_grad()
def test_copies_start_empty(kind: str, way: str) -> None:
    model, size = fresh(kind), SIZES[0]
    keys, length = list(model.state_dict()), len(pickle.dumps(model))
    outcome(model, size)
    assert kept(model, kind)
    assert list(model.state_dict()) == keys and len(pickle.dumps(model)) == length
    other = COPIES[way](model)
    assert not kept(other, kind)
    other.get_parameter(KINDS[kind][1]).mul_(2)
    like_a_new_one(other, kind, size)
    like_a_new_one(model, kind, size)


def _saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": _saved,
}


@pytest.mark.parametrize("build", SMALL_BACKBONES.values(), ids=SMALL_BACKBONES)
@torch.no_grad()
def test_averaged_weights_swap_in_and_out(build: Callable[[], nn.Module]) -> None:
    model, average = build().eval(), build().eval()
    for p in average.parameters():
        p.mul_(1.1)
    x = seeded_input(1, 70, 97)
    wanted = model(x), average(x)
    for turn in (1, 0, 1):
        for p, q in zip(model.parameters(), average.parameters(), strict=True):
            swap = p.data.clone()
            p.data.copy_(q.data)
            q.data.copy_(swap)
        close(model(x), wanted[turn], rtol=0, atol=0)


# --- functions of sizes alone


def test_pure_functions_are_called_once_and_give_ordinary_tensors() -> None:
    calls: list[int] = []

    @pure
    def ones(size: int) -> Tensor:
        calls.append(size)
        return torch.ones(size)

    with torch.inference_mode():
        first = ones(3)
    assert ones(3) is first and not first.is_inference() and calls == [3]
    with FakeTensorMode():
        assert type(ones(3)) is FakeTensor
    assert ones(3) is first and calls == [3, 3]
