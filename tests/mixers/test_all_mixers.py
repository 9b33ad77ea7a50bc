"""What holds for every mixer: its equation, any size, type and batch, and no overflow."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from definitions import DEFINITIONS, class_token, with_detail
from helpers import normal, seed_weights, tokens, weighted
from torch import Tensor, nn

from agent_attention.compute.guard import using
from agent_attention.mixers import MIXERS, Mixer, build_mixer

Pair = tuple[int, int]
close = torch.testing.assert_close
TABLE = {"table_shape": (6, 5)}
OPTIONS: dict[str, dict[str, Any]] = {  # by a title that begins with the mixer's name
    "agent": {"base_grid": 3, "agent_shape": (2, 4), **TABLE},
    "softmax": {},
    "reduced": {"sr_ratio": 1},
    "windows": {"window": 4, "shift": 2},
    "stripes": {"window": 3},
    "stripes, detail": {"window": 4, "detail": True},
    "focused": TABLE,
    "focused, other powers": {"factor": 4, "kernel": 3, "joint_qkv": True, **TABLE},
    "norm": {},
    "norm, elu": {"kernel": "elu", "detail": True},
    "diag": {"window": 4},
    "diag, relu": {"window": 3, "kernel": "relu"},
    "aft_full": {"rank": 4, **TABLE},
    "aft_local": {"rank": 4, "window": 3, **TABLE},
    "aft_conv": {"kernel": 5},
    "aft_conv, a head a channel": {"kernel": 3, "num_heads": 8, "detail": True},
    "aft_simple": {},
}
titles = pytest.mark.parametrize("title", OPTIONS)
further = pytest.mark.parametrize("title", [t for t in OPTIONS if t.split(",")[0] in DEFINITIONS])
afts = pytest.mark.parametrize("title", [t for t in OPTIONS if t.startswith("aft")])


def mixer_of(title: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A seeded mixer of 8 channels, in evaluation mode."""
    options = {"num_heads": 2, **OPTIONS[title], **changes}
    heads = options.pop("num_heads")
    item = {"type": title.split(",")[0], **options}
    return seed_weights(build_mixer(item, 8, heads)).to(dtype).eval()


def parts(mixer: Any, size: Pair, dtype: torch.dtype, batch: int = 2) -> list[Tensor]:
    """Standard normal numbers in the place of what ``project`` gives."""
    shapes = [part.shape for part in mixer.project(tokens(size, batch=batch).to(dtype), size)]
    return [normal(20 + i, tuple(shape)).to(dtype) for i, shape in enumerate(shapes)]


def test_every_mixer_is_tested() -> None:
    assert {title.split(",")[0] for title in OPTIONS} == MIXERS.keys()
    older = {"agent", "softmax", "reduced", "windows"}  # see test_definitions.py
    assert {*DEFINITIONS} == MIXERS.keys() - older


# --- the equation


SIZES: list[Pair] = [(6, 5), (1, 1), (1, 9), (7, 1), (2, 3), (5, 8)]


@further
def test_values_and_gradients_are_those_of_the_equation(title: str) -> None:
    mixer = mixer_of(title, torch.float64)
    equation = DEFINITIONS[title.split(",")[0]]
    for size in SIZES:
        x = tokens(size).double().requires_grad_()
        q, k, v = mixer.project(x, size)
        out = equation(mixer, q, k, v, size)
        if title.split(",")[0] != "focused":  # whose convolution is part of the equation
            out = with_detail(mixer, out, v, size)
        same(mixer, mixer(x, size), mixer.proj(out), x)


def same(mixer: nn.Module, found: Tensor, wanted: Tensor, x: Tensor) -> None:
    """Two outputs and their gradients are equal."""
    leaves = [x, *mixer.parameters()]
    of_found, of_wanted = (
        torch.autograd.grad(weighted([out]), leaves, materialize_grads=True)
        for out in (found, wanted)
    )
    # interpolation and norms keep a floor that only shows in the last digits
    close(found, wanted, rtol=1e-7, atol=1e-7)
    close(of_found, of_wanted, rtol=1e-5, atol=1e-6)


def test_keys_of_focused_attention_may_be_reduced() -> None:
    mixer = mixer_of("focused", torch.float64, reduction=2, table_shape=(8, 6))
    for size in [(8, 6), (6, 4), (5, 7)]:
        x = tokens(size).double().requires_grad_()
        out = DEFINITIONS["focused"](mixer, *mixer.project(x, size), size)
        same(mixer, mixer(x, size), mixer.proj(out), x)


@pytest.mark.parametrize("grid", [(3, 3), (4, 2), (5, 7)], ids=str)
def test_a_class_token_is_a_query_and_a_key_and_no_agent(grid: Pair) -> None:
    options = {"base_grid": 3, "agent_shape": grid, "joint_qkv": True, **TABLE}
    attn = seed_weights(build_mixer("agent", 8, 2, class_token=True, **options)).double().eval()
    for size in [(6, 5), (1, 9), (7, 8)]:
        x = normal(5, (2, 1 + size[0] * size[1], 8)).double().requires_grad_()
        wanted = attn.proj(class_token(attn, *attn.project(x, size), size))
        found = attn(x, size)
        close(found, wanted, rtol=1e-6, atol=1e-6)  # agents are interpolated in float32
        with torch.no_grad():
            close(attn(x, size), found, rtol=1e-6, atol=1e-6)


# --- sizes, types, batches


ODD = [
    *((1, side) for side in (1, 2, 3, 5, 8, 13, 40)),
    *((side, 1) for side in (2, 3, 4, 7, 11, 37)),
    *((2, side) for side in (2, 3, 5, 9, 16)),
    *((side, 2) for side in (3, 6, 15)),
    *((3, side) for side in (3, 4, 7, 10)),
    *((side, 3) for side in (5, 8)),
    (4, 4), (4, 5), (5, 4), (5, 5), (5, 6), (6, 5), (6, 6), (7, 7), (7, 9), (9, 7), (8, 8), (8, 11),
    (13, 12),
]  # fmt: skip
# largest error, in the largest of the definition's values in float64
TYPES = {torch.float64: 1e-9, torch.float32: 2e-5, torch.float16: 6e-3, torch.bfloat16: 1e-1}


def error(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, as a share of the largest wanted value."""
    assert found.shape == wanted.shape and found.isfinite().all()
    if not found.numel():
        return 0.0
    return ((found.double() - wanted.double()).abs().max() / wanted.abs().max()).item()


@titles
@torch.no_grad()
def test_every_size_type_and_batch_gives_what_the_definition_does(title: str) -> None:
    assert len({*ODD}) == 40
    mixers = {dtype: mixer_of(title, dtype) for dtype in TYPES}
    exact = {dtype: copy.deepcopy(mixer).double() for dtype, mixer in mixers.items()}
    for i, size in enumerate(ODD):
        for j, (dtype, most) in enumerate(TYPES.items()):
            x = tokens(size, batch=(0, 1, 3)[(i + j) % 3]).to(dtype)
            found = mixers[dtype](x, size)
            assert found.dtype == dtype
            with using(way="plain"):
                wanted = exact[dtype](x.double(), size)
            assert error(found, wanted) < most, (size, dtype)
        x = tokens(size, batch=1 + i % 2)
        with torch.autocast(x.device.type, torch.bfloat16):
            found = mixers[torch.float32](x, size)
        with using(way="plain"):
            wanted = exact[torch.float32](x.double(), size)
        assert error(found, wanted) < 0.1, (size, "autocast")


@titles
def test_gradients_are_finite_in_every_type_and_for_no_images(title: str) -> None:
    for dtype in TYPES:
        for size, batch in [((1, 7), 1), ((5, 6), 2), ((5, 6), 0)]:
            mixer = mixer_of(title, dtype)
            x = tokens(size, batch=batch).to(dtype).requires_grad_()
            mixer(x, size).float().square().sum().backward()
            gradients = [x.grad, *(p.grad for p in mixer.parameters())]
            if not batch:  # without images torch may leave a gradient out
                gradients = [g for g in gradients if g is not None]
            assert all(g is not None and g.isfinite().all() for g in gradients), (dtype, size)


@titles
@torch.no_grad()
def test_a_batch_gives_what_its_samples_give_alone(title: str) -> None:
    mixer, size = mixer_of(title, torch.float64), (5, 7)
    x = tokens(size, batch=3).double() * torch.tensor([1.0, 30.0, 0.01]).double()[:, None, None]
    alone = torch.cat([mixer(sample[None], size) for sample in x])
    close(mixer(x, size), alone, rtol=1e-9, atol=1e-9)


# --- what changes nothing


@titles
@torch.no_grad()
def test_a_number_added_to_all_keys_changes_nothing(title: str) -> None:
    if title.startswith(("focused", "norm", "diag, relu", "windows")):
        return  # by their equations it does; windows have their padding projected
    size = (6, 4) if title == "stripes" else (5, 7)
    mixer = mixer_of(title, torch.float64, **({"window": 2} if "stripes" in title else {}))
    size = (6, 4)
    q, k, v = parts(mixer, size, torch.float64)
    close(mixer.mix(q, k + 300, v, size), mixer.mix(q, k, v, size), rtol=1e-9, atol=1e-9)


def transposed(mixer: Any) -> Any:
    """The same mixer with rows for columns in all its tables."""
    other = copy.deepcopy(mixer)
    for name, parameter in other.named_parameters():
        last = name.rpartition(".")[2]
        tables = ("place_q_bias", "place_k_bias", "place_bias")
        if last in tables or name.endswith(("get_v.weight", "dwc.weight")):
            parameter.data = parameter.data.mT.contiguous()
        if last == "positional_encoding":
            square = parameter.data.unflatten(1, mixer.table_shape)
            parameter.data = square.transpose(1, 2).flatten(1, 2)
            other.table_shape = mixer.table_shape[::-1]
    return other


def turn(x: Tensor, size: Pair) -> Tensor:
    """Tokens row by row -> column by column."""
    return x.unflatten(1, size).transpose(1, 2).flatten(1, 2)


@titles
@torch.no_grad()
def test_a_transposed_map_with_transposed_tables_gives_the_transposed_result(title: str) -> None:
    if title.split(",")[0] in ("agent", "windows"):
        return  # whose tables are numbered by row and column
    mixer = mixer_of(title, torch.float64)
    for size in [(5, 8), (1, 9)]:
        x = tokens(size).double()
        q, k, v = mixer.project(x, size)
        wanted = turn(mixer.mix(q, k, v, size), size)
        other, given = transposed(mixer), [turn(t, size) for t in (q, k, v)]
        if title.startswith("stripes"):  # vertical ones are then horizontal
            given = [t.roll(4, -1) for t in given]
            other.attns = nn.ModuleList(reversed(other.attns))
            for branch in other.attns:
                branch.vertical = not branch.vertical
            other.attns = nn.ModuleList(other.attns)
            if other.has_detail:
                other.dwc.weight.data = other.dwc.weight.roll(4, 0)
                other.dwc.bias.data = other.dwc.bias.roll(4, 0)
            wanted = wanted.roll(4, -1)
        close(other.mix(*given, size[::-1]), wanted, rtol=1e-9, atol=1e-9)


# --- limits of AFT


@torch.no_grad()
def test_the_limits_of_aft_are_aft_simple_and_aft_full() -> None:
    size = (5, 7)
    full, local = mixer_of("aft_full", torch.float64), mixer_of("aft_local", torch.float64)
    conv = mixer_of("aft_conv, a head a channel", torch.float64, detail=False)
    given = parts(full, size, torch.float64)
    wanted = mixer_of("aft_simple", torch.float64).mix(*given, size)
    assert error(full.mix(*given, size), wanted) > 0.1
    wide = mixer_of("aft_local", torch.float64, window=7)
    close(wide.mix(*given, size), full.mix(*given, size), rtol=1e-12, atol=1e-12)
    for mixer in (full, local):
        mixer.place_k_bias.zero_()
        close(mixer.mix(*given, size), wanted, rtol=1e-12, atol=1e-12)
    conv.place_gain.zero_()
    conv.place_shift.zero_()
    close(conv.mix(*given, size), wanted, rtol=1e-12, atol=1e-12)
    at_start = build_mixer("aft_conv", 8, 8).double()
    close(at_start.mix(*given, size), wanted, rtol=1e-12, atol=1e-12)


def test_a_shift_of_all_places_cancels_where_the_kernel_covers_the_map() -> None:
    mixer, size = mixer_of("aft_conv", torch.float64, kernel=9), (5, 4)
    x = tokens(size).double()
    out = mixer(x, size)
    out.sum().backward()
    assert mixer.place_shift.grad.abs().max() < 1e-12 < mixer.place_gain.grad.abs().min()
    with torch.no_grad():
        mixer.place_shift.add_(3)
        close(mixer(x, size), out, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shift", [-2.0, -8.0, -12.0, -16.0])
@torch.no_grad()
def test_a_key_far_above_the_rest_may_be_suppressed_by_the_kernel(shift: float) -> None:
    """Around it a sum over the map less the same sum over the kernel would be left."""
    mixer, size = mixer_of("aft_conv"), (9, 9)
    mixer.place_gain.fill_(0.3)
    mixer.place_shift.fill_(shift)
    q, k, v = parts(mixer, size, torch.float32)
    k[:, 40] += 40
    found = mixer.mix(q, k, v, size)
    exact = [t.double() for t in (q, k, v)]
    wanted = DEFINITIONS["aft_conv"](copy.deepcopy(mixer).double(), *exact, size)
    close(found.double(), wanted, rtol=1e-5, atol=5e-6)


# --- no overflow


LARGE = {torch.float16: 6e4, torch.bfloat16: 1e30, torch.float32: 1e30}
LARGE_SCORES = 1e18  # of softmax where nobody looks at the result, as on a GPU; docs/mixers.md


def patterns(shape: tuple[int, ...], seed: int) -> list[Tensor]:
    """Numbers from -1 to 1: of all kinds, all the same, and a few among zeros."""
    few = torch.zeros(shape)
    few[:, 3], few[:, 4, :1] = 1, -1
    return [normal(seed, shape).clamp(-1, 1), torch.ones(shape), few]


@further
def test_no_finite_queries_keys_and_values_overflow(title: str) -> None:
    size = (5, 6)
    looks = torch.get_default_device().type == "cpu" or not title.startswith(("diag", "stripes"))
    for dtype, large in LARGE.items():
        mixer, large = mixer_of(title, dtype), large if looks else min(large, LARGE_SCORES)
        for module in mixer.modules():
            if isinstance(module, torch.nn.Conv2d):  # which may leave a type's range
                module.weight.data.mul_(0.01)
        like = [part.shape for part in parts(mixer, size, dtype)]
        for q, k, v in zip(*(patterns(tuple(s), i) for i, s in enumerate(like)), strict=True):
            given = [(large * each).to(dtype) for each in (q, k, v)]
            assert mixer.mix(*given, size).isfinite().all(), dtype
    for q, k, v in zip(*(patterns(tuple(s), i) for i, s in enumerate(like)), strict=True):
        leaves = [(1e4 * each).requires_grad_() for each in (q, k, v)]
        out = mixer_of(title).mix(*leaves, size)
        gradients = torch.autograd.grad(weighted([out]), leaves)
        assert all(gradient.isfinite().all() for gradient in gradients)


@afts
def test_keys_far_apart_leave_no_sum_without_a_term(title: str) -> None:
    mixer, size = mixer_of(title), (5, 6)
    q, k, v = parts(mixer, size, torch.float32)
    k = k.mul(300).requires_grad_()
    for name, parameter in mixer.named_parameters():
        if name.startswith("place"):
            parameter.data.mul_(10)
    out = mixer.mix(q, k, v, size)
    assert out.isfinite().all() and out.abs().max() <= v.abs().max() * (3 if "head" in title else 1)
    (gradient,) = torch.autograd.grad(weighted([out]), [k])
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("build", "fault"),
    [
        (lambda: build_mixer("aft_conv", 8, 2, kernel=4), "odd number from 3"),
        (lambda: build_mixer("aft_conv", 8, 2, kernel=1), "odd number from 3"),
        (lambda: build_mixer("norm", 8, 2, kernel="relu"), "kernel must be one of"),
        (lambda: build_mixer("diag", 8, 2, kernel="elu"), "'softmax' or 'relu'"),
        (lambda: build_mixer("stripes", 6, 3), "even number of heads"),
        (lambda: mixer_of("aft_full")(torch.zeros(1, 129 * 128, 8), (129, 128)), "use aft_conv"),
    ],
)
def test_what_a_mixer_cannot_be_is_refused(build: Callable[[], Mixer], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        build()
