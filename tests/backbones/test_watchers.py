"""Executors run only while nobody watches: no hook, no mode, no change of a module."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers import SMALL_BACKBONES, blocks_of, seeded_input, small_pvt, tokens
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize, prune
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from agent_attention.backbones import BACKBONES, lean
from agent_attention.compute.guard import using
from agent_attention.compute.norm_mlp import can_chunk
from agent_attention.layers import Mlp

pytestmark = pytest.mark.usefixtures("always_tiles")

models = pytest.mark.parametrize("name", BACKBONES)
gradients = pytest.mark.parametrize("gradients", [False, True])
close = torch.testing.assert_close
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
X = seeded_input(1, 64, 96)


def plain(model: nn.Module) -> Any:
    """The maps that the model's modules give by themselves."""
    with torch.no_grad(), using(way="plain"):
        return model(X)


def linears(model: nn.Module) -> list[nn.Linear]:
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


# --- P6: hooks


HOOKS = ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"]
CASES = [(kind, grad) for kind in HOOKS for grad in (True, False) if grad or "backward" not in kind]


@models
@pytest.mark.parametrize(("kind", "gradients"), CASES)
def test_global_hooks_see_every_module_and_keep_what_they_saw(
    name: str, kind: str, gradients: bool
) -> None:
    model, seen, kept = SMALL_BACKBONES[name]().eval(), set(), []
    wanted = plain(model)

    def hook(module: nn.Module, first: Any, *rest: Any) -> None:
        seen.add(module)
        kept.extend((t, t.clone()) for t in (*first, *rest) if isinstance(t, Tensor))

    register = {"full_backward_pre_hook": torch_module.register_module_full_backward_pre_hook}
    handle = register.get(kind, getattr(torch_module, f"register_module_{kind}"))(hook)
    try:
        with torch.set_grad_enabled(gradients):
            found = model(X.clone().requires_grad_(gradients))
        if gradients:
            sum(out.sum() for out in found).backward()
    finally:
        handle.remove()
    called = {m for m in model.modules() if not isinstance(m, (nn.ModuleList, nn.ModuleDict))}
    called -= {m for m in called if type(m).__name__ == "Layer"}
    assert called <= seen
    assert all(torch.equal(tensor, copy) for tensor, copy in kept)
    close(found, wanted, **CLOSE)


@gradients
def test_a_global_hook_may_change_outputs(gradients: bool) -> None:
    model, doubled = small_pvt().eval(), small_pvt().eval()
    for linear in linears(doubled):
        for parameter in linear.parameters():
            parameter.data.mul_(2)

    def hook(module: nn.Module, args: Any, out: Tensor) -> Tensor | None:
        return 2 * out if type(module) is nn.Linear else None

    handle = torch_module.register_module_forward_hook(hook)
    try:
        with torch.set_grad_enabled(gradients):
            found = model(X)
    finally:
        handle.remove()
    close(found, plain(doubled), **CLOSE)


OF_CSWIN = {"attn": "qkv", "attn.proj": "proj"}  # whose blocks have the projections


@models
@pytest.mark.parametrize("part", ["norm1", "attn", "attn.proj", "norm2", "mlp", "mlp.act", ""])
@pytest.mark.parametrize("kind", HOOKS[:2])
@torch.no_grad()
def test_what_a_hook_has_seen_is_not_overwritten(name: str, part: str, kind: str) -> None:
    model, seen = SMALL_BACKBONES[name]().eval(), []
    wanted = plain(model)

    def see(module: nn.Module, given: tuple[Any, ...], *made: Tensor) -> None:
        seen.append((tensor := (*made, given[0])[0], tensor.clone()))

    blocks = blocks_of(model)
    for block in blocks:
        path = part if block.attn is not None else OF_CSWIN.get(part, part)
        getattr(block.get_submodule(path), f"register_{kind}")(see)
    close(model(X), wanted, **CLOSE)
    assert len(seen) >= len(blocks) and all(torch.equal(out, copy) for out, copy in seen)


@pytest.mark.parametrize("kind", HOOKS)
@pytest.mark.parametrize("path", ["norm2", "mlp", "mlp.fc1", "mlp.act", "mlp.fc2", "attn.q"])
def test_hooks_of_modules_are_called_in_training(path: str, kind: str) -> None:
    block, calls = small_pvt().block1[0], []
    getattr(block.get_submodule(path), f"register_{kind}")(lambda *args: calls.append(path))
    block(tokens((3, 4)).requires_grad_(), (3, 4)).sum().backward()
    assert calls == [path]


# --- who is watching


class Passing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextmanager
def global_hook() -> Iterator[None]:
    handle = torch_module.register_module_forward_hook(lambda *_: None)
    try:
        yield
    finally:
        handle.remove()


WATCHERS: dict[str, Callable[[], Any]] = {
    "dispatch mode": lambda: FlopCounterMode(display=False),
    "function mode": Passing,
    "global hook": global_hook,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "definitions alone": lambda: using(way="plain"),
}


@pytest.mark.parametrize("watcher", WATCHERS)
@torch.no_grad()
def test_executors_run_only_while_nobody_watches(watcher: str) -> None:
    block = small_pvt().eval().block1[0]
    x = tokens((3, 4))

    def replaced() -> list[bool]:
        return [lean.takes([block], x), can_chunk(block.norm2, block.mlp, x)]

    assert replaced() == [True, True]
    with WATCHERS[watcher]():
        assert replaced() == [False, False]
    with torch.device("cpu"):  # as set_default_device does: it changes where tensors are made
        assert replaced() == [True, True]


CHANGED: dict[str, Callable[[Any], Any]] = {
    "parametrization": lambda b: parametrize.register_parametrization(
        b.mlp.fc1, "weight", nn.Identity()
    ),
    "pruning": lambda b: prune.l1_unstructured(b.mlp.fc1, "weight", 0.5),
    "forward of its own": lambda b: setattr(b.mlp.fc1, "forward", b.mlp.fc1.forward),
    "hook": lambda b: b.mlp.fc1.register_forward_hook(lambda *_: None),
    "training mode": lambda b: b.train(),
}


@pytest.mark.parametrize("change", CHANGED)
@torch.no_grad()
def test_executors_run_only_on_modules_that_are_what_they_say(change: str) -> None:
    block = small_pvt().eval().block1[0]
    assert type(block.mlp) is Mlp and lean.takes([block], tokens((3, 4)))
    CHANGED[change](block)
    assert not lean.takes([block], tokens((3, 4)))
