"""The fast paths: attention in tiles or by the fused kernels, the MLP in slabs, recorded graphs."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers import normal, seed_weights, seeded_input, small_pvt
from test_agent_swin import small_swin
from test_attention import Largest, agent_attention, tokens
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from agent_attention import kernels, slabs
from agent_attention.layers import Mlp
from agent_attention.mlp import mlp_of_norm
from agent_attention.tiles import tiled_attention
from agent_attention.window import shift_mask

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


@pytest.fixture(params=["tiled", "joined"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each of the two ways, with a proof that it was this one."""
    calls = {"tiled": 0, "joined": 0}

    def count(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(*args: Any) -> Tensor:
            calls[name] += 1
            return function(*args)

        return counted

    monkeypatch.setattr(kernels, "tiled_attention", count("tiled", tiled_attention))
    monkeypatch.setattr(kernels, "_joined", count("joined", kernels._joined))
    if request.param == "joined":
        monkeypatch.setattr(kernels, "wants_slabs", lambda x: False)
    yield
    assert [name for name, number in calls.items() if number] == [request.param]


# --- the definition: q (B, Q, h, d), k and v (B, K, h, d), biases (Q, h, P) and (K, h, P)


def definition(q: Tensor, k: Tensor, v: Tensor, q_bias: Tensor, k_bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + q_bias k_bias^T) v, a sample, a head and a query at a time."""
    samples = []
    for b in range(q.shape[0]):
        heads = []
        for h in range(q.shape[2]):
            rows = []
            for i in range(q.shape[1]):
                scores = k[b, :, h] @ q[b, i, h] / q.shape[-1] ** 0.5
                scores = scores + k_bias[:, h] @ q_bias[i, h]  # (K,)
                powers = (scores - scores.max()).exp()
                rows.append(powers / powers.sum() @ v[b, :, h])
            heads.append(torch.stack(rows))
        samples.append(torch.stack(heads, 1))
    return torch.stack(samples)


def numbers(shape: tuple[int, ...], seed: int) -> Tensor:
    return normal(seed, shape).double().requires_grad_()


def inputs(queries: int, keys: int, batch: int, heads: int, d: int = 5, p: int = 9) -> list[Tensor]:
    """q, k, v, q_bias and k_bias in float64."""
    shapes = [(batch, queries, heads, d), (batch, keys, heads, d), (batch, keys, heads, d)]
    shapes += [(queries, heads, p), (keys, heads, p)]
    return [numbers(shape, seed) for seed, shape in enumerate(shapes)]


def same(leaves: list[Tensor], made: list[Tensor]) -> None:
    """The outcome of ``made``, and gradients of ``leaves``, are those of the definition."""
    found, wanted = kernels.attend(*made), definition(*made)
    close(found, wanted, **EXACT)
    weights = numbers(tuple(wanted.shape), 9)
    found, wanted = (torch.autograd.grad((x * weights).sum(), leaves) for x in (found, wanted))
    close(found, wanted, **EXACT)


# --- attention


@pytest.mark.usefixtures("tiny_slabs", "path")
@pytest.mark.parametrize(("batch", "heads"), [(1, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize(("queries", "keys"), [(3, 37), (37, 3), (9, 9), (1, 1), (1, 6), (6, 1)])
def test_values_and_gradients_are_those_of_the_definition(
    queries: int, keys: int, batch: int, heads: int
) -> None:
    leaves = inputs(queries, keys, batch, heads)
    same(leaves, leaves)


@pytest.mark.usefixtures("tiny_slabs", "path")
@pytest.mark.parametrize(("queries", "keys"), [(3, 10), (10, 3)])
def test_bias_factors_may_be_expanded_over_heads(queries: int, keys: int) -> None:
    leaves = inputs(queries, keys, batch=2, heads=3)[:3]
    leaves += [numbers((queries, 1, 9), 3), numbers((keys, 1, 9), 4)]
    same(leaves, [*leaves[:3], *(x.expand(-1, 3, -1) for x in leaves[3:])])


@pytest.mark.usefixtures("tiny_slabs", "path")
@pytest.mark.parametrize(("queries", "keys"), [(3, 10), (10, 3)])
def test_tensors_may_be_parts_of_a_joint_one(queries: int, keys: int) -> None:
    *_, q_bias, k_bias = inputs(queries, keys, batch=2, heads=2)
    q, kv = numbers((2, queries, 3, 2, 5), 5), numbers((2, 2, keys, 2, 10), 6)
    k, v = kv[:, 1].chunk(2, -1)
    same([q, kv, q_bias, k_bias], [q[:, :, 1], k, v, q_bias, k_bias])


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "mm" in func.__name__
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("tiny_slabs")
@pytest.mark.parametrize(("queries", "keys"), [(3, 10), (10, 3)])
@pytest.mark.parametrize("frozen", [(1,), (3, 4), (0, 1, 3, 4)])
def test_gradients_are_made_where_they_are_needed_only(
    queries: int, keys: int, frozen: tuple[int, ...]
) -> None:
    wanted = inputs(queries, keys, batch=1, heads=2)
    found = [x.detach().requires_grad_(i not in frozen) for i, x in enumerate(wanted)]
    counts = []
    for tensors in (wanted, found):
        out = kernels.attend(*tensors)
        with Products() as products:
            out.square().sum().backward()
        counts.append(products.count)
    assert counts[1] < counts[0]
    for i, (x, y) in enumerate(zip(found, wanted, strict=True)):
        if i in frozen:
            assert x.grad is None
        else:
            close(x.grad, y.grad, **EXACT)


@pytest.mark.usefixtures("tiny_slabs")
@pytest.mark.parametrize(("queries", "keys"), [(2, 5), (5, 2)])
def test_gradients_of_tiles_are_finite_differences(queries: int, keys: int) -> None:
    tensors = [x.squeeze(0) for x in inputs(queries, keys, batch=1, heads=2, d=2, p=2)[:3]]
    tensors += inputs(queries, keys, batch=1, heads=2, d=2, p=2)[3:]
    leaves = [x.detach().requires_grad_() for x in tensors]
    assert torch.autograd.gradcheck(tiled_attention, leaves)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("queries", [4, 40])
def test_large_logits_in_float32_are_finite_and_exact(queries: int) -> None:
    factors = (100, 100, 1, 100, 100)  # logits of order 1e4
    values = [
        x.detach() * f
        for x, f in zip(inputs(queries, 44 - queries, 2, 2, 16), factors, strict=True)
    ]
    leaves = [x.float().requires_grad_() for x in values]
    out = kernels.attend(*leaves)
    out.square().sum().backward()
    close(out.double(), definition(*(x.detach().double() for x in leaves)), rtol=1e-3, atol=1e-4)
    assert all(x.grad is not None and x.grad.isfinite().all() for x in leaves)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("queries", [4, 40])
def test_large_logits_under_autocast_are_finite_and_exact(queries: int, dtype: torch.dtype) -> None:
    factors = (100, 100, 1, 100, 100)
    values = [
        x.detach() * f
        for x, f in zip(inputs(queries, 44 - queries, 2, 2, 16), factors, strict=True)
    ]
    leaves = [x.to(dtype).float().requires_grad_() for x in values]  # no loss in the cast
    with torch.autocast("cpu", dtype=dtype):
        out = kernels.attend(*leaves)
    assert out.dtype is dtype
    out.float().square().sum().backward()
    wanted = definition(*(x.detach().double() for x in leaves))
    assert (out - wanted).abs().max() < LOW[dtype] * wanted.abs().max()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in leaves)


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


@pytest.mark.parametrize("p", [9, 16, 49])
@pytest.mark.parametrize("d", [5, 8, 32])
def test_fused_kernels_get_no_mask_and_heads_of_one_aligned_size(
    d: int, p: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fused(*args: Tensor, **options: Any) -> Tensor:
        calls.append((args, options))
        return original(*args, **options)

    original = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", fused)
    monkeypatch.setattr(kernels, "wants_slabs", lambda x: False)
    kernels.attend(*inputs(6, 4, batch=2, heads=3, d=d, p=p))
    ((args, options),) = calls
    assert [x.shape[:3] for x in args] == [(2, 3, 6), (2, 3, 4), (2, 3, 4)]
    widths = {x.shape[3] for x in args}
    assert len(widths) == 1 and not widths.pop() % 8
    assert all(x.stride(-1) == 1 for x in args)
    assert options.get("attn_mask") is None and not options.get("is_causal")


@pytest.mark.parametrize(("queries", "keys"), [(3, 10), (10, 3)])
def test_dropout_keeps_the_mean(queries: int, keys: int) -> None:
    q, k, v, *factors = (x.detach() for x in inputs(queries, keys, batch=1, heads=2))
    many = [x.expand(4000, -1, -1, -1) for x in (q, k, v)]
    wanted = kernels.attend(q, k, v, *factors)[0]
    draws = kernels.attend(*many, *factors, 0.3)
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


def test_the_mlp_makes_no_hidden_layer_of_all_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "_SLAB", 1 << 10)
    monkeypatch.setattr(slabs, "_FEWEST", 8)
    x = tokens((32, 32)).requires_grad_()
    with Largest() as largest:
        mlp_of_norm(*mlp_and_norm(), x).sum().backward()
    assert largest.numel == x.numel()


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
