"""What depends on a map's size alone is made once, and never outlives the weights it is made of."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import normal, seed_weights, seeded_input, small_pvt
from test_agent_swin import small_swin
from test_attention import TABLES, agent_attention, tokens
from torch import Tensor, nn

from agent_attention import AgentAttention
from agent_attention.backbones import pvt
from agent_attention.compute.size_cache import BySize
from agent_attention.mixers.windows import WindowAttention

pytestmark = pytest.mark.usefixtures("always_tiles")

Pair = tuple[int, int]
SIZES: list[Pair] = [(5, 6), (6, 5), (9, 7)]
close = torch.testing.assert_close


def window_attention() -> WindowAttention:
    return seed_weights(WindowAttention(8, 2, window=3, shift=1)).eval()


# Of each module that keeps something: how to make it, what it makes by size, and of which weight.
KINDS: dict[str, tuple[Callable[[], Any], Any, str, str]] = {
    "agent": (agent_attention, AgentAttention, "_bias_factors", "an_bias"),
    "window": (window_attention, WindowAttention, "_bias", "relative_position_bias_table"),
    "position": (small_pvt, pvt, "resize", "pos_embed1"),
}
kinds = pytest.mark.parametrize("kind", KINDS)


def fresh(kind: str) -> Any:
    return KINDS[kind][0]().eval()


def outcome(model: nn.Module, size: Pair) -> Tensor:
    """Of an attention, or the first map of a backbone, on seeded numbers."""
    dtype = next(model.parameters()).dtype
    if isinstance(model, pvt.AgentPVT):
        return model(seeded_input(1, 8 * size[0], 8 * size[1]).to(dtype))[0]
    return model(tokens(size).to(dtype), size)


def like_a_new_one(model: nn.Module, kind: str, size: Pair) -> None:
    """The outcome is that of a new model with the same weights."""
    new = fresh(kind).to(next(model.parameters()).dtype)
    new.load_state_dict(model.state_dict())
    close(outcome(model, size), outcome(new, size), rtol=0, atol=0)


def kept(model: nn.Module) -> int:
    """Bytes kept anywhere in the model."""
    return sum(m.nbytes() for m in model.modules() if isinstance(m, BySize))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each kind has made what depends on the size."""
    counts = dict.fromkeys(KINDS, 0)

    def count(kind: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            counts[kind] += 1
            return original(*args)

        return counted

    for kind, (_, owner, name, _) in KINDS.items():
        monkeypatch.setattr(owner, name, count(kind, getattr(owner, name)))
    return counts


# --- once a size


@kinds
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_evaluation_makes_it_once_a_size(kind: str, mode: Any, made: dict[str, int]) -> None:
    model = fresh(kind)
    # padded to windows two sizes are one, and so are they in the last of the four stages
    times = {"agent": 3, "window": 2, "position": 4 * 3 - 1}[kind]
    with mode():
        wanted = [outcome(model, size) for size in SIZES]
        assert made[kind] == times
        for _ in range(2):
            for size, first in zip(SIZES, wanted, strict=True):
                assert torch.equal(outcome(model, size), first)
        assert made[kind] == times
        for size in SIZES:
            like_a_new_one(model, kind, size)


@kinds
def test_what_is_kept_gives_the_outcomes_of_training_mode(kind: str) -> None:
    model, size = fresh(kind), SIZES[0]
    with torch.no_grad():
        found = [outcome(model, size) for _ in range(2)]
        wanted = outcome(model.train(), size)
    close(found, [wanted, wanted], rtol=0, atol=0)


@kinds
@torch.no_grad()
def test_frozen_tables_are_kept_with_gradients_enabled(kind: str, made: dict[str, int]) -> None:
    model = fresh(kind).requires_grad_(False)
    with torch.enable_grad():
        outcome(model, SIZES[0])
        number = made[kind]
        outcome(model, SIZES[0])
    assert number and made[kind] == number


# --- changes of the weights


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


def new_data_again(model: nn.Module, weight: nn.Parameter) -> None:
    """Memory that is freed may be given out once more at the same place."""
    values = weight.data * 2
    weight.data = torch.empty(0)
    weight.data = values


def swapped_average(model: nn.Module, weight: nn.Parameter) -> None:
    """mmengine's EMAHook before a validation."""
    weight.data.copy_(weight.data * 2)
    model.eval()


def swapped_in_training(model: nn.Module, weight: nn.Parameter) -> None:
    model.train()
    weight.data.copy_(weight.data * 2)
    model.eval()


CHANGES: dict[str, Callable[[nn.Module, nn.Parameter], Any]] = {
    "optimizer step": step,
    "in place": in_place,
    "load_state_dict": load,
    "load_state_dict(assign)": lambda model, weight: load(model, weight, assign=True),
    "p.data = new": new_data,
    "p.data = new at the same place": new_data_again,
    "p.data.copy_ and eval": swapped_average,
    "train, p.data.copy_ and eval": swapped_in_training,
    "initialised again": lambda model, weight: nn.init.normal_(weight),
    "double": lambda model, weight: model.double(),
    "bfloat16": lambda model, weight: model.to(torch.bfloat16),
    "float16 and back": lambda model, weight: model.half().float(),
}


@kinds
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_seen(kind: str, change: str) -> None:
    model = fresh(kind)
    with torch.no_grad():
        before = [outcome(model, size) for size in SIZES]
    CHANGES[change](model, model.get_parameter(KINDS[kind][3]))
    with torch.no_grad():
        for size, old in zip(SIZES, before, strict=True):
            like_a_new_one(model, kind, size)
            assert not torch.equal(outcome(model, size), old)


@pytest.mark.parametrize("name", TABLES)
def test_a_change_of_each_table_is_seen(name: str) -> None:
    model = fresh("agent")
    with torch.no_grad():
        before = outcome(model, SIZES[0])
        model.get_parameter(name).mul_(2)
        assert not torch.equal(outcome(model, SIZES[0]), before)
        like_a_new_one(model, "agent", SIZES[0])


@pytest.mark.parametrize("build", [small_pvt, small_swin])
def test_averaged_weights_swap_in_and_out(build: Callable[[], nn.Module]) -> None:
    model, average = build().eval(), build().eval()
    with torch.no_grad():
        for p in average.parameters():
            p.mul_(1.1)
        x = seeded_input(1, 70, 97)
        wanted = model(x), average(x)
        assert not torch.equal(wanted[0][0], wanted[1][0])
        for turn in (1, 0, 1):
            for p, q in zip(model.parameters(), average.parameters(), strict=True):
                swap = p.data.clone()
                p.data.copy_(q.data)
                q.data.copy_(swap)
            model.eval()
            close(model(x), wanted[turn], rtol=0, atol=0)


@torch.no_grad()
def test_another_agent_grid_is_seen() -> None:
    attn, x = agent_attention(agent_shape=(3, 4)), tokens((5, 6))
    attn(x, (5, 6))
    attn.agent_shape = (4, 3)
    close(attn(x, (5, 6)), agent_attention(agent_shape=(4, 3))(x, (5, 6)))


# --- copies and states


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved,
}


@kinds
@pytest.mark.parametrize("way", COPIES)
@torch.no_grad()
def test_copies_start_empty_and_leave_the_original_alone(
    kind: str, way: str, made: dict[str, int]
) -> None:
    model, size = fresh(kind), SIZES[0]
    before, bytes_kept = outcome(model, size), kept(model)
    other = COPIES[way](model)
    assert bytes_kept and not kept(other) and kept(model) == bytes_kept
    other.get_parameter(KINDS[kind][3]).mul_(2)
    like_a_new_one(other, kind, size)
    number = made[kind]
    assert torch.equal(outcome(model, size), before) and made[kind] == number


@kinds
@torch.no_grad()
def test_nothing_kept_is_part_of_the_state(kind: str) -> None:
    model = fresh(kind)
    keys, length = list(model.state_dict()), len(pickle.dumps(model))
    outcome(model, SIZES[0])
    assert kept(model) and list(model.state_dict()) == keys
    assert len(pickle.dumps(model)) < length + 200  # bytes; what is kept has thousands


# --- memory


def ask(by_size: BySize, weight: Tensor, *widths: int) -> list[bool]:
    """Ask for float32 vectors of these many numbers; whether each was made."""
    new = []
    for width in widths:
        calls: list[int] = []

        def make(width: int = width, calls: list[int] = calls) -> tuple[Tensor]:
            calls.append(width)
            return (torch.full((width,), float(width)),)

        (found,) = by_size((width, 1), [weight], make)
        assert found.shape == (width,) and (found == width).all()
        new.append(bool(calls))
    return new


def test_no_more_is_kept_than_allowed_and_the_oldest_goes_first() -> None:
    by_size, weight = BySize(most=4 * 100).eval(), torch.ones(3)
    assert ask(by_size, weight, 30, 40, 20) == [True] * 3
    assert by_size.nbytes() == 4 * 90
    assert ask(by_size, weight, 30) == [False]  # and is now the youngest
    assert ask(by_size, weight, 25) == [True]
    assert by_size.nbytes() == 4 * 75
    assert ask(by_size, weight, 20, 30, 25) == [False] * 3
    assert ask(by_size, weight, 40) == [True]
    assert by_size.nbytes() == 4 * 95


def test_what_is_larger_than_allowed_is_given_and_not_kept() -> None:
    by_size, weight = BySize(most=4 * 100).eval(), torch.ones(3)
    ask(by_size, weight, 50)
    assert ask(by_size, weight, 101, 101) == [True, True]
    assert by_size.nbytes() == 4 * 50 and ask(by_size, weight, 50, 100) == [False, True]
    assert by_size.nbytes() == 4 * 100


def test_memory_shared_by_all_heads_counts_once_and_whole() -> None:
    by_size, weight = BySize(most=4 * 100).eval(), torch.ones(3)
    by_size((1, 1), [weight], lambda: (torch.ones(10, 1).expand(-1, 8), torch.ones(40)[:3]))
    assert by_size.nbytes() == 4 * (10 + 40)


@kinds
@torch.no_grad()
def test_many_sizes_stay_within_the_memory_allowed(kind: str) -> None:
    model = fresh(kind)
    parts = [m for m in model.modules() if isinstance(m, BySize)]
    for part in parts:
        part.most = 20_000
    sizes = [(4 + i, 5 + j) for i in range(4) for j in range(3)]
    for size in sizes:
        outcome(model, size)
        assert all(part.nbytes() <= part.most for part in parts)
    assert kept(model)
    for size in sizes:
        like_a_new_one(model, kind, size)


# --- training


@kinds
@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_kept_where_gradients_are_wanted(
    kind: str, training: bool, made: dict[str, int]
) -> None:
    model = fresh(kind).train(training)
    numbers = []
    for _ in range(2):
        outcome(model, SIZES[0]).square().sum().backward()
        assert not kept(model)
        numbers.append(made[kind])
    assert numbers[1] == 2 * numbers[0] > 0
    names = TABLES if kind == "agent" else [KINDS[kind][3]]
    gradients = [model.get_parameter(name).grad for name in names]
    assert all(g is not None and g.isfinite().all() and g.any() for g in gradients)


@kinds
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_do_not_depend_on_an_earlier_evaluation(
    kind: str, mode: Any, training: bool
) -> None:
    model, other, size = fresh(kind), fresh(kind), SIZES[1]
    with mode():
        outcome(model, size)
    for m in (model, other):
        outcome(m.train(training), size).square().sum().backward()
    found, wanted = ([p.grad for p in m.parameters()] for m in (model, other))
    close(found, wanted, rtol=0, atol=0)


@kinds
def test_what_inference_mode_made_serves_frozen_tables_in_training(kind: str) -> None:
    model, size = fresh(kind), SIZES[0]
    model.get_parameter(KINDS[kind][3]).requires_grad_(False)
    for name in TABLES if kind == "agent" else ():
        model.get_parameter(name).requires_grad_(False)
    with torch.inference_mode():
        wanted = outcome(model, size).clone()
    found = outcome(model, size)  # a graph through what was kept
    found.square().sum().backward()
    close(found, wanted)
    grads = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads)


@kinds
def test_a_model_built_in_inference_mode_works_and_sees_changes(kind: str) -> None:
    with torch.inference_mode():
        model, size = fresh(kind), SIZES[0]
        for _ in range(2):
            like_a_new_one(model, kind, size)
        before = outcome(model, size)
        model.get_parameter(KINDS[kind][3]).mul_(2)
        assert not torch.equal(outcome(model, size), before)
        like_a_new_one(model, kind, size)
    with torch.no_grad():
        like_a_new_one(model, kind, size)


def test_a_backbone_in_evaluation_gives_what_a_new_one_gives() -> None:
    x, y = seeded_input(1, 70, 97), normal(3, (2, 3, 64, 64))
    for build in (small_pvt, small_swin):
        model = build().eval()
        with torch.no_grad():
            for images in (x, y, x, y):
                close(model(images), build().eval()(images), rtol=0, atol=0)
