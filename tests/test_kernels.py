"""The fast paths: attention in tiles or by the fused kernels, the MLP in slabs, recorded graphs."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from helpers import normal, seed_weights, seeded_input, small_pvt
from test_agent_swin import small_swin
from test_attention import Largest, agent_attention, tokens
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from agent_attention.arguments import Pair
from agent_attention.compute import attend as kernels
from agent_attention.compute import chunks as slabs
from agent_attention.compute import norm_mlp as mlp_module
from agent_attention.compute.bias import AgentBias
from agent_attention.compute.norm_mlp import add_mlp_of_norm, mlp_of_norm
from agent_attention.compute.projections import project, project_into
from agent_attention.layers import Mlp
from agent_attention.mixers.windows import shift_mask

pytestmark = pytest.mark.usefixtures("always_tiles")

close = torch.testing.assert_close
EXACT = {"rtol": 1e-11, "atol": 1e-11}  # in float64
LOW = {torch.bfloat16: 0.04, torch.float16: 0.005}  # of the largest value, after a backbone
MODELS: dict[str, Callable[[], nn.Module]] = {
    "pvt": small_pvt,
    "pvt with softmax": lambda: small_pvt(attn_types="ABAB"),
    "swin": small_swin,
}


@pytest.fixture
def tiny_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs of at most four tokens."""
    monkeypatch.setattr(slabs, "_SLAB", 1)
    monkeypatch.setattr(slabs, "_FEWEST", 4)
    parts = list(slabs.slabs(37, 1))
    assert len(parts) == 10 and parts[-1] == slice(36, 37)
    assert list(slabs.slabs(7, 1, tokens=2))[:2] == [slice(0, 2), slice(2, 4)]
    assert len(list(slabs.slabs(7, 1, tokens=5))) == 7


@pytest.fixture(params=["tiled", "joined"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each of the two ways, with a proof that it was this one."""
    calls = {"tiled": 0, "joined": 0}

    def count(way: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(*args: Any) -> Tensor:
            calls[way] += 1
            return function(*args)

        return counted

    for way, name in (("tiled", "_each"), ("joined", "_joined")):
        monkeypatch.setattr(kernels, name, count(way, getattr(kernels, name)))
    if request.param == "joined":
        monkeypatch.setattr(kernels, "wants_slabs", lambda x: False)
    yield
    assert [way for way, number in calls.items() if number] == [request.param]


# --- the definition


def definition(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, a sample, a head and a query at a time.

    q (B, Q, h, d), k and v (B, K, h, d), bias (h, Q, K) -> (B, Q, h, d).
    """
    samples = []
    for b in range(q.shape[0]):
        heads = []
        for h in range(q.shape[2]):
            rows = []
            for i in range(q.shape[1]):
                scores = k[b, :, h] @ q[b, i, h] / q.shape[-1] ** 0.5 + bias[h, i]  # (K,)
                powers = (scores - scores.max()).exp()
                rows.append(powers / powers.sum() @ v[b, :, h])
            heads.append(torch.stack(rows))
        samples.append(torch.stack(heads, 1))
    return torch.stack(samples)


def numbers(shape: tuple[int, ...], seed: int) -> Tensor:
    return normal(seed, shape).double().requires_grad_()


class Case(NamedTuple):
    """Agents (B, n, h, d), tokens (B, N, h, d), values of the keys, and the bias between both."""

    kind: str
    agents: Tensor
    tokens: Tensor
    v: Tensor
    bias: AgentBias

    def found(self, dropout: float = 0.0) -> Tensor:
        if self.kind == "gather":
            return kernels.gather(self.agents, self.tokens, self.v, self.bias, dropout)
        return kernels.serve(self.tokens, self.agents, self.v, self.bias, dropout)

    def wanted(self) -> Tensor:
        rows, columns, across, down, level = (x.double() for x in self.bias)
        base = torch.einsum("hpyk,kx->hpyx", down, across) + level
        base = base.unflatten(1, (rows.shape[1], columns.shape[1]))
        bias = torch.einsum("ar,bc,hrcyx->habyx", rows, columns, base)
        bias = bias.flatten(3).flatten(1, 2)  # (h, n, N)
        agents, tokens, v = (x.double() for x in self[1:4])
        if self.kind == "gather":
            return definition(agents, tokens, v, bias)
        return definition(tokens, agents, v, bias.transpose(1, 2))

    def leaves(self) -> list[Tensor]:
        return [self.agents, self.tokens, self.v, self.bias.down, self.bias.level]

    def made_of(self, leaves: Sequence[Tensor]) -> "Case":
        """The same case with other tensors."""
        bias = AgentBias(*self.bias[:3], *leaves[3:])
        return Case(self.kind, *leaves[:3], bias)


def case(
    kind: str, grid: Pair, size: Pair, batch: int = 1, heads: int = 2, d: int = 5, p: Pair = (3, 3)
) -> Case:
    """Seeded numbers in float64: an agent grid, a map's size and a base grid."""
    n, count = grid[0] * grid[1], size[0] * size[1]
    values = count if kind == "gather" else n
    agents, tokens, v = (
        numbers((batch, number, heads, d), i) for i, number in enumerate((n, count, values))
    )
    places = (heads, p[0] * p[1])
    shapes = (grid[0], p[0]), (grid[1], p[1]), (4, size[1])
    fixed = [numbers(shape, 3 + i).detach() for i, shape in enumerate(shapes)]
    down, level = numbers((*places, size[0], 4), 6), numbers((*places, 1, size[1]), 7)
    return Case(kind, agents, tokens, v, AgentBias(*fixed, down, level))


def same(made: Case, leaves: list[Tensor]) -> None:
    """The outcome, and the gradients of ``leaves``, are those of the definition."""
    found, wanted = made.found(), made.wanted()
    close(found, wanted, **EXACT)
    weights = numbers(tuple(wanted.shape), 9)
    found, wanted = (torch.autograd.grad((x * weights).sum(), leaves) for x in (found, wanted))
    close(found, wanted, **EXACT)


kinds = pytest.mark.parametrize("kind", ["gather", "serve"])


# --- attention


@kinds
@pytest.mark.usefixtures("tiny_slabs", "path")
@pytest.mark.parametrize(("batch", "heads"), [(1, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize(
    ("grid", "size"),
    [((1, 3), (7, 5)), ((4, 2), (2, 2)), ((3, 3), (3, 3)), ((1, 1), (1, 1)), ((2, 5), (9, 1))],
)
def test_values_and_gradients_are_those_of_the_definition(
    kind: str, grid: Pair, size: Pair, batch: int, heads: int
) -> None:
    made = case(kind, grid, size, batch, heads, p=(2, 3))
    same(made, made.leaves())


@pytest.mark.usefixtures("path")
@kinds
def test_a_map_in_one_tile_is_the_definition_too(kind: str) -> None:
    made = case(kind, (2, 3), (4, 5))
    same(made, made.leaves())


@kinds
@pytest.mark.usefixtures("tiny_slabs", "path")
def test_tensors_may_be_parts_of_a_joint_one(kind: str) -> None:
    made = case(kind, (1, 3), (2, 5), batch=2)
    joint = [numbers((2, x.shape[1], 3, 2, 10), 10 + i) for i, x in enumerate(made[1:4])]
    parts = [x[:, :, 1].chunk(2, -1)[1] for x in joint]
    same(made.made_of([*parts, *made.bias[3:]]), [*joint, *made.bias[3:]])


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "mm" in func.__name__
        return func(*args, **(kwargs or {}))


@kinds
@pytest.mark.usefixtures("tiny_slabs")
@pytest.mark.parametrize("frozen", [(1,), (2,), (3, 4), (0, 1, 3, 4)])
def test_gradients_are_made_where_they_are_needed_only(kind: str, frozen: tuple[int, ...]) -> None:
    wanted = case(kind, (1, 3), (2, 5))
    found = wanted.made_of(
        [x.detach().requires_grad_(i not in frozen) for i, x in enumerate(wanted.leaves())]
    )
    counts = []
    for made in (wanted, found):
        out = made.found()
        with Products() as products:
            out.square().sum().backward()
        counts.append(products.count)
    assert counts[1] < counts[0]
    for i, (x, y) in enumerate(zip(found.leaves(), wanted.leaves(), strict=True)):
        if i in frozen:
            assert x.grad is None
        else:
            close(x.grad, y.grad, **EXACT)


@kinds
@pytest.mark.usefixtures("tiny_slabs")
def test_gradients_of_tiles_are_finite_differences(kind: str) -> None:
    made = case(kind, (1, 2), (2, 3), d=2, p=(1, 2))
    leaves = [x.detach().requires_grad_() for x in made.leaves()]
    assert torch.autograd.gradcheck(lambda *x: made.made_of(x).found(), leaves)


@kinds
@pytest.mark.usefixtures("tiny_slabs", "path")
def test_large_logits_in_float32_are_finite_and_exact(kind: str) -> None:
    made = large(kind, torch.float32)
    out = made.found()
    out.square().sum().backward()
    close(out.double(), made.wanted(), rtol=1e-3, atol=1e-4)
    assert all(x.grad is not None and x.grad.isfinite().all() for x in made.leaves())


@kinds
@pytest.mark.parametrize("dtype", LOW)
def test_large_logits_under_autocast_are_finite_and_exact(kind: str, dtype: torch.dtype) -> None:
    made = large(kind, dtype)  # no loss in the cast
    with torch.autocast("cpu", dtype=dtype):
        out = made.found()
    out.float().square().sum().backward()
    wanted = made.wanted()
    assert (out - wanted).abs().max() < LOW[dtype] * wanted.abs().max()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in made.leaves())


def large(kind: str, dtype: torch.dtype) -> Case:
    """Logits of order 1e4 of numbers that have no more digits than ``dtype``, in float32."""
    made = case(kind, (1, 4), (4, 9), batch=2, d=16, p=(1, 4))
    across = made.bias.across.to(dtype).float()
    identity = AgentBias(torch.eye(1), torch.eye(4), across, *made.bias[3:])
    factors = (100, 100, 1, 30, 30)
    values = [x.detach() * f for x, f in zip(made.leaves(), factors, strict=True)]
    leaves = [x.to(dtype).float().requires_grad_() for x in values]
    return Case(kind, made.agents, made.tokens, made.v, identity).made_of(leaves)


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
def test_a_module_with_large_logits_is_finite(dtype: torch.dtype) -> None:
    attn = agent_attention(dim=32, agent_shape=(4, 5))
    with torch.no_grad():
        attn.q.weight *= 1000
        for name in ("an_bias", "na_bias", "ah_bias", "ha_bias"):
            attn.get_parameter(name).mul_(3000)
    with torch.autocast("cpu", dtype=dtype, enabled=dtype in LOW):
        out = attn(tokens((10, 12), dim=32), (10, 12))
    assert out.dtype is dtype and out.isfinite().all()
    out.float().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attn.parameters())


def maps_and_gradient(model: nn.Module, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    with torch.autocast("cpu", dtype=dtype, enabled=dtype in LOW):
        outs = model(seeded_input(1, 64, 96))
    losses = [(out.float() * normal(13 + i, tuple(out.shape))).mean() for i, out in enumerate(outs)]
    gradients = torch.autograd.grad(torch.stack(losses).sum(), list(model.parameters()))
    return outs, torch.cat([g.flatten() for g in gradients])


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [False, True])
def test_backbones_under_autocast_are_close_to_float32(
    name: str, dtype: torch.dtype, training: bool
) -> None:
    model = MODELS[name]().train(training)
    wanted, wanted_gradient = maps_and_gradient(model, torch.float32)
    found, gradient = maps_and_gradient(model, dtype)
    for x, y in zip(found, wanted, strict=True):
        assert x.isfinite().all() and (x - y).abs().max() < LOW[dtype] * y.abs().max()
    assert gradient.isfinite().all()
    assert (gradient - wanted_gradient).norm() < 2 * LOW[dtype] * wanted_gradient.norm()


@kinds
@pytest.mark.parametrize("p", [3, 4, 7])
@pytest.mark.parametrize("d", [5, 8, 32])
def test_fused_kernels_get_no_mask_and_heads_of_one_aligned_size(
    kind: str, d: int, p: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fused(*args: Tensor, **options: Any) -> Tensor:
        calls.append((args, options))
        return original(*args, **options)

    original = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", fused)
    monkeypatch.setattr(kernels, "wants_slabs", lambda x: False)
    case(kind, (2, 3), (2, 2), batch=2, heads=3, d=d, p=(p, p)).found()
    ((args, options),) = calls
    agents, tokens = (2, 3, 6), (2, 3, 4)
    expected = [agents, tokens, tokens] if kind == "gather" else [tokens, agents, agents]
    assert [x.shape[:3] for x in args] == expected
    widths = {x.shape[3] for x in args}
    assert len(widths) == 1 and not widths.pop() % 8
    assert all(x.stride(-1) == 1 for x in args)
    assert options.get("attn_mask") is None and not options.get("is_causal")


@kinds
def test_dropout_keeps_the_mean(kind: str) -> None:
    made = case(kind, (1, 3), (2, 5))
    many = [x.detach().expand(4000, -1, -1, -1) for x in made[1:4]]
    wanted, draws = made.found()[0], Case(kind, *many, made.bias).found(dropout=0.3)
    error = draws.std(0) / len(draws) ** 0.5
    assert draws.std(0).mean() > 0.1
    assert ((draws.mean(0) - wanted).abs() < 5 * error).all()


def test_a_module_drops_in_training_only() -> None:
    x, size = tokens((6, 5)), (6, 5)
    wanted, attn = agent_attention()(x, size), agent_attention(attn_drop=0.5)
    assert torch.equal(attn(x, size), wanted)
    first, second = attn.train()(x, size), attn(x, size)
    assert not torch.allclose(first, wanted) and not torch.allclose(first, second)
    assert torch.equal(attn.eval()(x, size), wanted)


@pytest.mark.parametrize("joint", [False, True])
def test_nothing_of_queries_times_keys_is_ever_made(
    joint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slabs, "_SLAB", 1 << 14)
    monkeypatch.setattr(slabs, "_FEWEST", 8)
    attn, size = agent_attention(agent_shape=(16, 16), joint_qkv=joint), (64, 64)
    x = tokens(size, batch=1).requires_grad_()
    with Largest() as largest:
        attn(x, size).sum().backward()
    # the tables' (N, h, P) are 2.25 times the input (N, C), and N*n is 32 times as much
    assert x.numel() <= largest.numel <= 3 * x.numel()


# --- the MLP


def mlp_and_norm(drop: float = 0.0) -> tuple[Mlp, nn.LayerNorm]:
    both = seed_weights(nn.Sequential(Mlp(8, 24, drop), nn.LayerNorm(8, eps=1e-3)))
    return both[0], both[1]


def same_mlp(mlp: Mlp, norm: nn.LayerNorm) -> None:
    """Values and gradients are those of ``mlp(norm(x))``, in float64."""
    both = nn.ModuleList([mlp, norm]).double()
    x = numbers((3, 7, 8), 1)
    found, wanted = mlp_of_norm(mlp, norm, x), mlp(norm(x))
    close(found, wanted, **EXACT)
    weights, leaves = numbers((3, 7, 8), 2), [x, *both.parameters()]
    found, wanted = (torch.autograd.grad((y * weights).sum(), leaves) for y in (found, wanted))
    close(found, wanted, **EXACT)


@pytest.mark.usefixtures("tiny_slabs")
@pytest.mark.parametrize("training", [False, True])
def test_the_mlp_in_slabs_is_that_of_the_modules(training: bool) -> None:
    mlp, norm = mlp_and_norm()
    same_mlp(mlp.train(training), norm)


@pytest.mark.usefixtures("tiny_slabs")
def test_the_mlp_in_slabs_has_the_gradients_of_finite_differences() -> None:
    mlp, norm = (module.double() for module in mlp_and_norm())
    leaves = (numbers((1, 6, 8), 1), *mlp.parameters(), *norm.parameters())
    assert torch.autograd.gradcheck(lambda x, *_: mlp_of_norm(mlp, norm, x), leaves, fast_mode=True)


def test_a_large_hidden_layer_is_never_made_of_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlp_module, "_KEPT", 32 * 32 * 24 - 1)
    monkeypatch.setattr(slabs, "_SLAB", 1 << 10)
    monkeypatch.setattr(slabs, "_FEWEST", 8)
    x = tokens((32, 32)).requires_grad_()
    with Largest() as largest:
        mlp_of_norm(*mlp_and_norm(), x).sum().backward()
    assert largest.numel == x.numel()


@pytest.mark.parametrize("most", [5 * 6 * 24, 5 * 6 * 24 - 1])
def test_a_small_hidden_layer_is_kept_for_the_backward_pass(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp_module, "_KEPT", most)
    mlp, norm = mlp_and_norm()
    kept: list[int] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        mlp_of_norm(mlp, norm, tokens((5, 6), batch=1))
    assert (5 * 6 * 24 in kept) == (most == 5 * 6 * 24)
    same_mlp(mlp, norm)


def test_the_mlp_drops_in_training_only() -> None:
    x, (mlp, norm) = tokens((5, 6)), mlp_and_norm(drop=0.5)
    wanted = mlp_of_norm(*mlp_and_norm(), x)
    torch.manual_seed(1)
    found = mlp_of_norm(mlp.train(), norm, x)
    torch.manual_seed(1)
    assert torch.equal(found, mlp(norm(x))) and not torch.allclose(found, wanted)
    close(mlp_of_norm(mlp.eval(), norm, x), wanted)


@pytest.mark.parametrize(
    "kind",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
@pytest.mark.parametrize("name", ["mlp", "fc1", "act", "fc2", "norm"])
def test_hooks_are_called(name: str, kind: str) -> None:
    mlp, norm = mlp_and_norm()
    modules = {"mlp": mlp, "norm": norm, **dict(mlp.named_children())}
    calls = []
    getattr(modules[name], kind)(lambda *args: calls.append(name))
    mlp_of_norm(mlp, norm, tokens((2, 3)).requires_grad_()).sum().backward()
    assert calls == [name]


@pytest.mark.parametrize("name", ["pvt", "swin"])
@pytest.mark.parametrize("part", ["norm1", "attn", "attn.proj", "norm2", "mlp", "drop_path"])
@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
@torch.no_grad()
def test_what_a_hook_has_seen_is_not_overwritten(name: str, part: str, kind: str) -> None:
    model, x, seen = MODELS[name]().eval(), seeded_input(1, 64, 96), []
    wanted = model(x)

    def see(module: nn.Module, given: tuple[Any, ...], *made: Tensor) -> None:
        seen.append((tensor := (*made, given[0])[0], tensor.clone()))

    for key, module in model.named_modules():
        if key.endswith(f".{part}"):
            getattr(module, kind)(see)
    close(model(x), wanted, rtol=1e-5, atol=1e-6)
    assert seen and all(torch.equal(out, copy) for out, copy in seen)


@pytest.mark.usefixtures("tiny_slabs")
@pytest.mark.parametrize("name", ["pvt", "swin"])
def test_without_gradients_the_maps_are_the_same(name: str) -> None:
    """Tensors are then overwritten; never the caller's."""
    model, x = MODELS[name]().eval(), seeded_input(2, 70, 99)
    copy, wanted = x.clone(), model(x)
    with torch.no_grad():
        close(model(x), wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(x, copy)


@torch.no_grad()
@pytest.mark.parametrize("dtype", LOW)
def test_residuals_under_autocast_stay_in_float32(dtype: torch.dtype) -> None:
    block, x = small_pvt().eval().block1[0], tokens((16, 24))
    with torch.autocast("cpu", dtype):
        assert block(x, (16, 24)).dtype == torch.float32


@pytest.mark.usefixtures("tiny_slabs")
@torch.no_grad()
def test_tokens_that_were_given_are_not_overwritten() -> None:
    attn, norm, size = agent_attention(), seed_weights(nn.LayerNorm(8)), (12, 12)
    x = tokens(size, batch=2)
    copy = x.clone()
    wanted = attn(norm(x), size)
    close(attn(x, size, norm), wanted)
    assert torch.equal(x, copy)


@pytest.mark.usefixtures("tiny_slabs")
@torch.no_grad()
def test_what_the_agents_serve_may_go_to_the_memory_of_the_queries() -> None:
    made = case("serve", (2, 3), (9, 7), batch=2, heads=2)
    q, agents, v = (x.detach() for x in (made.tokens, made.agents, made.v))
    wanted = kernels.serve(q, agents, v, made.bias)
    assert kernels.serve(q, agents, v, made.bias, overwrite=True) is q
    close(q, wanted)


@pytest.mark.usefixtures("tiny_slabs")
@torch.no_grad()
def test_one_block_leaves_its_memory_to_the_next() -> None:
    attn, norm, size = agent_attention(), seed_weights(nn.LayerNorm(8)), (12, 12)
    x, spare = tokens(size, batch=2), list[Tensor]()
    wanted = attn(x, size, norm)
    found = attn(x, size, norm, spare)
    places = {each.data_ptr() for each in spare}
    assert len(places) == 3 and not places & {x.data_ptr(), found.data_ptr()}
    for each in spare:
        each.fill_(torch.nan)
    again = attn(x, size, norm, spare)
    close(found, wanted)
    close(again, wanted)
    assert {each.data_ptr() for each in spare} != places and again.data_ptr() in places


@pytest.mark.usefixtures("tiny_slabs")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_projections_of_a_norm_are_those_of_the_modules(count: int, bias: bool) -> None:
    parts = seed_weights(nn.Sequential(nn.LayerNorm(8), *(nn.Linear(8, 12, bias) for _ in "ab")))
    norm, *linears = parts.double()[: count + 1]
    x = numbers((3, 7, 8), 1).detach()
    wanted = [part for linear in linears for part in linear(norm(x)).split(6, -1)]
    close(project(linears, x, 6, norm), wanted, **EXACT)
    with torch.no_grad():
        close(project(linears, x, 6, norm), wanted, **EXACT)
        memory = torch.empty(3, 7, 12, dtype=torch.float64)
        out = project_into(linears[0], x, memory)
    assert out is memory
    close(out, linears[0](x), **EXACT)


@pytest.mark.usefixtures("tiny_slabs")
@torch.no_grad()
def test_a_residual_is_added_to_tokens_that_are_not_in_one_piece() -> None:
    mlp, norm = (module.double() for module in mlp_and_norm())
    x = numbers((2, 9, 8), 1).detach()[:, :7]
    wanted = x + mlp(norm(x))
    close(add_mlp_of_norm(mlp, norm, x), wanted, **EXACT)


class Adapted(nn.Linear):
    """What adapters such as LoRA put in the place of a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("name", ["fc1", "fc2"])
def test_a_subclass_in_the_mlp_is_used(name: str) -> None:
    mlp, norm = mlp_and_norm()
    same_mlp(mlp, norm)
    setattr(mlp, name, Adapted(*reversed(mlp.get_submodule(name).weight.shape)))
    same_mlp(mlp, norm)


@pytest.mark.parametrize("name", ["q", "kv", "qkv"])
def test_a_subclass_in_a_projection_is_used(name: str) -> None:
    attn, x, size = agent_attention(joint_qkv=name == "qkv"), tokens((5, 6)), (5, 6)
    plain = attn.get_submodule(name)
    adapted = Adapted(8, plain.out_features)
    adapted.load_state_dict(plain.state_dict())
    setattr(attn, name, adapted)
    found = attn(x, size)
    with torch.no_grad():
        plain.weight *= 2
        plain.bias *= 2
    setattr(attn, name, plain)
    close(found, attn(x, size))


@pytest.mark.parametrize("name", ["q", "kv"])
def test_a_hook_on_a_projection_is_called(name: str) -> None:
    attn, calls = agent_attention(), []
    attn.get_submodule(name).register_forward_hook(lambda *args: calls.append(name))
    attn(tokens((3, 4)), (3, 4))
    assert calls == [name]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("act", nn.GELU("tanh")),
        ("fc1", nn.Linear(8, 24, bias=False)),
        ("fc2", nn.Linear(24, 8, bias=False)),
        ("norm", nn.LayerNorm(8, bias=False)),
        ("norm", nn.LayerNorm(8, elementwise_affine=False)),
    ],
)
def test_layers_with_other_options_are_used(name: str, layer: nn.Module) -> None:
    mlp, norm = mlp_and_norm()
    if name != "norm":
        setattr(mlp, name, layer)
    same_mlp(mlp, layer if isinstance(layer, nn.LayerNorm) else norm)


def test_an_empty_batch_gives_empty_maps() -> None:
    assert agent_attention()(tokens((4, 5))[:0], (4, 5)).shape == (0, 20, 8)


@pytest.mark.parametrize("what", ["attention", "mlp"])
def test_a_backward_pass_under_autocast_runs(what: str) -> None:
    x = tokens((4, 5)).requires_grad_()
    out = agent_attention()(x, (4, 5)) if what == "attention" else mlp_of_norm(*mlp_and_norm(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


# --- recorded graphs


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_traced_models_give_the_same_maps(name: str, gradients: bool) -> None:
    model, first, second = MODELS[name]().eval(), seeded_input(1, 64, 96), normal(2, (1, 3, 64, 96))
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, first, check_trace=False)
        close(traced(second), model(second), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_traced_models_pass_the_check_of_the_tracer(name: str, gradients: bool) -> None:
    shift_mask.cache_clear()
    with torch.set_grad_enabled(gradients):
        torch.jit.trace(MODELS[name]().eval(), seeded_input(1, 64, 96))


@pytest.mark.parametrize("name", MODELS)
def test_exported_models_give_the_same_maps(name: str) -> None:
    model, first, second = MODELS[name]().eval(), seeded_input(1, 64, 96), normal(2, (1, 3, 64, 96))
    exported = torch.export.export(model, (first,)).module()
    found = exported(second)
    shift_mask.cache_clear()  # see the next test
    close(found, model(second), rtol=1e-4, atol=1e-5)


def test_export_does_not_disturb_the_model() -> None:
    model, x = small_swin().eval(), seeded_input(1, 64, 96)
    wanted = model(x)
    shift_mask.cache_clear()
    try:
        torch.export.export(model, (x,))
        assert all(type(out) is Tensor for out in model(x))
        close(model(x), wanted)
    finally:
        shift_mask.cache_clear()


def test_a_layer_may_be_replaced_by_several() -> None:
    mlp, norm = mlp_and_norm()
    mlp.fc1 = nn.Sequential(mlp.fc1, nn.Identity())  # type: ignore[assignment]
    same_mlp(mlp, norm)
