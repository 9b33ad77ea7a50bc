"""Recorded graphs: traced, exported and compiled models give the numbers of the eager ones."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers import SMALL_ARCHS, SMALL_SWIN, normal, seeded_input, small_backbone, weighted
from torch import Tensor, nn
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch.autograd import grad
from torch.export import Dim

from agent_attention.backbones import Backbone

pytestmark = pytest.mark.usefixtures("always_tiles")


def shallow(family: str, **options: Any) -> nn.Module:
    """A backbone of as few blocks as have every kind: what is recorded of each takes long."""
    arch = SMALL_ARCHS[family]
    if "depths" in arch:
        arch = {**arch, "depths": (1, 2 if family == "swin" else 1, 1, 1)}
    return small_backbone(family, **{"arch": arch, **options}).eval()


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{family: partial(shallow, family) for family in SMALL_ARCHS},
    "pvt with softmax": partial(shallow, "pvt", attn_types="ABAB"),
}
models = pytest.mark.parametrize("name", MODELS)
# the first two stages, or blocks, which have every mixer, but CSwin's: the others repeat them
BEGUN: dict[str, Callable[[], nn.Module]] = {
    name: make if "cswin" in name else partial(make, out_indices=(0, 1))
    for name, make in MODELS.items()
}
BEGUN["flatten_swin"] = partial(BEGUN["flatten_swin"], mixers=["focused", "windows"] * 2)
close = torch.testing.assert_close
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize(("gradients", "check"), [(False, True), (True, False)])
@models
def test_traced_models_give_the_same_maps(name: str, gradients: bool, check: bool) -> None:
    model, first, second = MODELS[name](), seeded_input(1, 64, 96), normal(2, (1, 3, 64, 96))
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(model, first, check_trace=check)
        close(traced(second), model(second), **CLOSE)


@models
def test_exported_models_give_the_same_maps_and_leave_the_model_alone(name: str) -> None:
    model, first, second = BEGUN[name](), seeded_input(1, 64, 96), normal(2, (1, 3, 64, 96))
    with torch.no_grad():
        wanted = model(second)
        exported = torch.export.export(model, (first,)).module()
        close(exported(second), wanted, **CLOSE)
        found = model(second)
    assert all(type(out) is Tensor for out in found)
    close(found, wanted, rtol=0, atol=0)


@torch.no_grad()
@models
def test_a_backbone_compiles_as_one_graph(name: str) -> None:
    model, x = BEGUN[name](), normal(1, (2, 3, 64, 96))
    torch.compiler.reset()  # torch compiles a function a few times only
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    close(compiled(x), model(x), **CLOSE)


SHIFTED = {**SMALL_SWIN, "depths": (2, 1, 1, 1)}  # every second block is


def graphs() -> int:
    """How many graphs ``torch.compile`` has made of a backbone since the last reset."""
    return len(_debug_get_cache_entry_list(Backbone.forward.__code__))


OPEN_SIZES: dict[str, dict[str, Any]] = {  # as many stages as have every kind of step
    "swin": {"arch": {**SMALL_SWIN, "depths": (1, 2, 1, 1)}, "mixers": ["agent", "windows"] * 2}
    | {"out_indices": (0, 1)},
    "flatten_swin": {"mixers": ["focused", "windows", "focused", "focused"], "out_indices": (0, 1)},
    "pvt": {"attn_types": "ABAA", "out_indices": (0, 1)},
    "vit": {"out_indices": (0,)},
    "cswin": {"mixers": ["agent", "stripes", "agent", "agent"], "out_indices": (0, 1)},
    "flatten_pvt_v2": {"out_indices": (0,)},
}


@pytest.mark.parametrize("name", OPEN_SIZES)
def test_one_compiled_graph_is_for_all_sizes(name: str) -> None:
    """Also sides that no stride divides, maps of one window, and more than one; gradients too."""
    model = shallow(name, **OPEN_SIZES[name])
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    weights = list(model.parameters())
    narrow = 64 if name == "pvt" else 32  # of its one column torch would make another graph
    for shape in [(2, 3, 64, 96), (3, 3, 101, 163), (2, 3, 250, narrow)]:
        x = normal(1, shape)
        outs, wanted = compiled(x), model(x)
        close(outs, wanted, **CLOSE)
        found, right = (grad(weighted(each), weights, allow_unused=True) for each in (outs, wanted))
        close(found, right, rtol=1e-4, atol=1e-3)
    assert graphs() == 1


@torch.no_grad()
def test_a_rule_for_agents_makes_a_graph_for_each_grid() -> None:
    model = shallow("vit", agent_shape="bounded", out_indices=(0,))
    attn = model.blocks[0].attn
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    grids = set()
    for height, width in [(64, 96), (50, 100), (128, 64), (126, 66)]:
        x = normal(1, (2, 3, height, width))
        close(compiled(x), model(x), **CLOSE)
        grids.add(attn.grid((-(-height // 16), -(-width // 16))))
    assert graphs() == len(grids) == 2


@torch.no_grad()
def test_a_compiled_model_takes_a_second_size() -> None:
    """The first compilation is for one size, the second for any (torch's default)."""
    torch.compiler.reset()
    model = shallow("vit", out_indices=(0,))
    compiled = torch.compile(model, backend="aot_eager")
    for shape in [(1, 3, 96, 128), (1, 3, 128, 96), (1, 3, 97, 250)]:
        x = normal(1, shape)
        close(compiled(x), model(x), **CLOSE)
    assert graphs() == 2


OPEN: dict[
    str, tuple[dict[str, Any], list[tuple[int, int]]]
] = {  # what no other recorded graph has, in one stage: options, and sizes of images
    "flatten_swin": (
        {"arch": SHIFTED, "mixers": ["windows"] * 4, "window_size": 96},
        [(32, 64), (128, 32)],
    ),
    "cswin": ({"mixers": ["stripes"] * 4}, [(32, 64), (160, 32)]),
    "vit": ({}, [(64, 96), (224, 224)]),
    "flatten_pvt_v2": ({}, [(64, 96), (224, 224)]),
}


@torch.no_grad()
@pytest.mark.parametrize("name", OPEN)
def test_an_exported_model_takes_any_size(name: str) -> None:
    """Also maps of one window, which FLatten-Swin does not shift, and of one stripe."""
    options, sizes = OPEN[name]
    model = shallow(name, out_indices=(0,), **options)
    free = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    exported = torch.export.export(
        model,
        (normal(1, (2, 3, 288, 416)),),
        dynamic_shapes={"x": free},
        prefer_deferred_runtime_asserts_over_guards=True,
    ).module()
    for batch, size in enumerate(sizes, 2):
        x = normal(2, (batch, 3, *size))
        close(exported(x), model(x), **CLOSE)
