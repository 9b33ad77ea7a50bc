"""What other people's software does to a model works as on any model of plain modules."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import SMALL_BACKBONES, agent_attention, normal, seeded_input, small_pvt, tokens
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.utils.flop_counter import FlopCounterMode

from agent_attention.backbones import BACKBONES
from agent_attention.compute.guard import using

pytestmark = pytest.mark.usefixtures("always_tiles")  # executors on these small maps too

models = pytest.mark.parametrize("name", BACKBONES)
gradients = pytest.mark.parametrize("gradients", [False, True])
close = torch.testing.assert_close
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
X = seeded_input(1, 64, 96)


def plain(model: nn.Module, x: Tensor = X) -> Any:
    """The maps that the model's modules give by themselves."""
    with torch.no_grad(), using(way="plain"):
        return model(x)


# --- P1: counting operations


@models
@pytest.mark.parametrize("size", [(224, 224), (256, 320)])
def test_flops_are_those_of_the_definition_on_every_device(
    name: str, size: tuple[int, int]
) -> None:
    counts = []
    for device in ("cpu", "meta"):
        model = SMALL_BACKBONES[name]().eval().to(device)
        with torch.no_grad(), using(way=None), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, *size, device=device))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_flops_of_agent_attention_are_four_n_agents_channels() -> None:
    attn, size = agent_attention(agent_shape=(4, 5)), (12, 10)
    with using(way=None), FlopCounterMode(display=False) as counter:
        attn(tokens(size, batch=1), size)
    n, c = 120, 8
    assert counter.get_total_flops() // 2 == 4 * n * 20 * c + 4 * n * c * c + 9 * n * c


# --- P2, P10: weights of another kind, patched classes


class Doubling(Tensor):
    """A weight with its own idea of a linear layer, as quantised ones have."""

    calls: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = [a.as_subclass(Tensor) if isinstance(a, Doubling) else a for a in args]
        if func is nn.functional.linear:
            cls.calls.append("linear")
            return 2 * func(*plain, **(kwargs or {}))
        if func in (Tensor.split, Tensor.chunk, torch.split, torch.addmm, torch.mm):
            raise NotImplementedError(f"Doubling has no {func}")
        return func(*plain, **(kwargs or {}))


def linears(model: nn.Module) -> list[nn.Linear]:
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


@models
@gradients
def test_weights_of_another_type_are_used_by_their_layer(name: str, gradients: bool) -> None:
    model, doubled = SMALL_BACKBONES[name]().eval(), SMALL_BACKBONES[name]().eval()
    for linear, twin in zip(linears(model), linears(doubled), strict=True):
        values = linear.weight.detach().as_subclass(Doubling)
        linear._parameters["weight"] = values
        twin.weight.data.mul_(2)
        if twin.bias is not None:
            twin.bias.data.mul_(2)
    Doubling.calls.clear()
    with torch.set_grad_enabled(gradients):
        found = model(X)
    assert len(Doubling.calls) == len(linears(model))
    close(found, plain(doubled), **CLOSE)


@models
@gradients
def test_a_patched_class_is_called(
    name: str, gradients: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, calls, original = SMALL_BACKBONES[name]().eval(), [], nn.Linear.forward
    wanted = plain(model)

    def patched(self: nn.Linear, x: Tensor) -> Tensor:
        calls.append(self)
        return original(self, x)

    monkeypatch.setattr(nn.Linear, "forward", patched)
    with torch.set_grad_enabled(gradients):
        close(model(X), wanted, **CLOSE)
    assert len(calls) == len(linears(model))


class Adapted(nn.Linear):
    """What adapters such as LoRA put in the place of a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@gradients
@pytest.mark.parametrize("path", ["attn.q", "attn.kv", "attn.proj", "mlp.fc1", "mlp.fc2"])
def test_a_subclass_in_the_place_of_a_layer_is_used(path: str, gradients: bool) -> None:
    model, doubled = small_pvt().eval(), small_pvt().eval()
    for block, twin in zip(model.block2, doubled.block2, strict=True):
        parent, _, child = path.rpartition(".")
        linear = block.get_submodule(path)
        adapted = Adapted(linear.in_features, linear.out_features)
        adapted.load_state_dict(linear.state_dict())
        setattr(block.get_submodule(parent), child, adapted)
        for parameter in twin.get_submodule(path).parameters():
            parameter.data.mul_(2)
    with torch.set_grad_enabled(gradients):
        close(model(X), plain(doubled), **CLOSE)


# --- P3: other layers


REPLACED: dict[str, Callable[[Any], Any]] = {
    "mlp.act": lambda block: nn.SiLU(),
    "mlp.drop": lambda block: nn.Identity(),
    "mlp": lambda block: nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)),
    "norm1": lambda block: nn.Linear(8, 8),
    "norm2": lambda block: nn.GELU("tanh"),
    "drop_path": lambda block: nn.Linear(8, 8),
    "attn": lambda block: Mean(),
    "attn.proj_drop": lambda block: nn.GELU(),
    "attn.q": lambda block: nn.Sequential(block.attn.q, nn.Identity()),
    "attn.dwc": lambda block: nn.Conv2d(8, 8, 1),
    "mlp.fc1": lambda block: nn.Linear(8, 16, bias=False),
}


class Mean(nn.Module):
    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return x.mean(1, keepdim=True).expand_as(x)


@gradients
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("path", REPLACED)
def test_any_layer_may_be_replaced(path: str, training: bool, gradients: bool) -> None:
    model = small_pvt().train(training)
    parent, _, child = path.rpartition(".")
    block: Any = model.block1[0]
    layer = REPLACED[path](block).train(training)
    setattr(block.get_submodule(parent), child, layer)
    if path == "mlp.fc1":
        block.mlp.fc2 = nn.Linear(16, 8)
    with torch.set_grad_enabled(gradients):
        found = model(X)
    close(found, plain(model), **CLOSE)


# --- P5: offloading


class Offloaded:
    """Weights are on the meta device and come for the time of a call, as accelerate has it."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.forward = module, module.forward
        self.weights = dict(module._parameters)
        self.leave()
        module.forward = self  # type: ignore[assignment]

    def leave(self) -> None:
        for name, weight in self.weights.items():
            if weight is not None:
                self.module._parameters[name] = nn.Parameter(weight.to("meta"))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.module._parameters.update(self.weights)
        try:
            return self.forward(*args, **kwargs)
        finally:
            self.leave()


@models
@gradients
def test_weights_may_be_elsewhere_between_calls(name: str, gradients: bool) -> None:
    model = SMALL_BACKBONES[name]().eval()
    wanted = plain(model)
    for module in model.modules():
        if any(weight is not None for weight in module._parameters.values()):
            Offloaded(module)
    with torch.set_grad_enabled(gradients):
        for _ in range(2):
            close(model(X), wanted, **CLOSE)


# --- P7, P8, P9: memory format, function transforms, writes that leave no trace


@models
def test_a_model_may_be_in_channels_last(name: str) -> None:
    model = SMALL_BACKBONES[name]().eval()
    wanted, state = plain(model), copy.deepcopy(model.state_dict())
    model.to(memory_format=torch.channels_last)
    close(model.state_dict(), state, rtol=0, atol=0, check_stride=False)
    assert list(model.state_dict()) == list(state)
    with torch.no_grad():
        close(model(X.to(memory_format=torch.channels_last)), wanted, **CLOSE)
    model.half().double()
    assert all(p.dtype == torch.float64 for p in model.parameters())


def loss(model: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    return torch.stack([out.square().mean() for out in functional_call(model, weights, (x,))]).sum()


@models
def test_function_transforms(name: str) -> None:
    model = SMALL_BACKBONES[name](out_indices=(0, 1)).eval()
    weights = {key: p.detach() for key, p in model.named_parameters()}
    images = seeded_input(2, 32, 32)
    model.zero_grad()
    loss(model, dict(model.named_parameters()), images[:1]).backward()
    wanted = {key: p.grad for key, p in model.named_parameters()}
    close(grad(lambda w: loss(model, w, images[:1]))(weights), wanted, rtol=1e-3, atol=1e-4)

    each = vmap(grad(lambda w, x: loss(model, w, x[None])), in_dims=(None, 0))(weights, images)
    close({key: g[0] for key, g in each.items()}, wanted, rtol=1e-3, atol=1e-4)

    _, slope = jvp(lambda x: loss(model, weights, x), (images[:1],), (torch.ones(1, 3, 32, 32),))
    x = images[:1].clone().requires_grad_()
    (of_x,) = torch.autograd.grad(loss(model, weights, x), x)
    close(slope, of_x.sum(), rtol=1e-3, atol=1e-4)


def test_an_ensemble_under_vmap() -> None:
    members = [small_pvt(out_indices=(0,)).eval() for _ in range(2)]
    members[1].block1[0].mlp.fc1.weight.data.mul_(2)
    weights, buffers = stack_module_state(members)  # type: ignore[arg-type]
    base = copy.deepcopy(members[0]).to("meta")
    with torch.no_grad():
        found = vmap(lambda w, b: functional_call(base, (w, b), (X,))[0])(weights, buffers)
    close(found, torch.stack([plain(member)[0] for member in members]), **CLOSE)


@models
def test_the_definition_can_be_differentiated_twice(name: str) -> None:
    model, x = (
        SMALL_BACKBONES[name](out_indices=(0,)).eval(),
        seeded_input(1, 32, 32).requires_grad_(),
    )
    with using(way="plain"):
        (first,) = torch.autograd.grad(model(x)[0].square().sum(), x, create_graph=True)
    first.square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad.any()


@models
def test_writes_through_data_are_seen(name: str) -> None:
    model, size = SMALL_BACKBONES[name]().eval(), (70, 99)
    x = seeded_input(1, *size)
    with torch.no_grad():
        model(x)
        for parameter in model.parameters():
            parameter.data.mul_(1.1)
        close(model(x), plain(model, x), **CLOSE)


# --- P12: channels


@models
def test_the_first_convolution_may_take_other_channels(name: str) -> None:
    model = SMALL_BACKBONES[name]().eval()
    stem = model.stage_modules(0)[0]
    path, conv = next(each for each in stem.named_modules() if isinstance(each[1], nn.Conv2d))
    stem.set_submodule(path, nn.Conv2d(4, 8, conv.kernel_size, conv.stride, conv.padding))
    assert len(model(normal(1, (1, 4, 64, 64)))) == 4
    with pytest.raises(ValueError, match=r"\(B, 4, H, W\), got \(1, 3, 64, 64\)"):
        model(torch.zeros(1, 3, 64, 64))
