"""What a graphics card is given, checked without one: nothing is left or made on the CPU.

Tensors on torch's "meta" device have no memory, and an operation that takes some of them and some
of the CPU is seen here. Models take the same path there as on a graphics card.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import small_pvt, small_swin
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agent_attention import AgentPVT, AgentSwinTransformer
from agent_attention.compute.guard import using
from agent_attention.mixers import build_mixer

pytestmark = pytest.mark.usefixtures("always_tiles")

SIZES = [(64, 64), (70, 97)]
MODELS: dict[str, Callable[[], nn.Module]] = {
    "pvt": small_pvt,
    "pvt with softmax": lambda: small_pvt(attn_types="BABA"),
    "swin": small_swin,
    "swin of windows": lambda: small_swin(attn_types="BBBB"),
}
EXECUTORS = {"_Aggregate", "_Broadcast", "_NormProject", "_AddLinear", "_AddNormMlp"}
models = pytest.mark.parametrize("name", MODELS)


class Devices(TorchDispatchMode):
    """Notes the devices of all that operations take and give, and the types of what they give."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        found = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        self.seen |= {x.device.type for x in found}
        self.dtypes |= {x.dtype for x in tree_leaves(out) if isinstance(x, Tensor)}
        return out


@models
@pytest.mark.parametrize(("training", "dtype"), [(True, torch.float16), (False, torch.bfloat16)])
def test_a_training_step_stays_on_its_device(name: str, dtype: torch.dtype, training: bool) -> None:
    model = MODELS[name]().to("meta", dtype).train(training)
    for size in SIZES:
        image = torch.empty(2, 3, *size, device="meta", dtype=dtype)
        with Devices() as devices:
            outs = model(image)
            torch.stack([out.float().sum() for out in outs]).sum().backward()
        assert devices.seen == {"meta"}
        assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
        with torch.no_grad(), Devices() as devices:
            for _ in range(2):
                assert all(out.is_meta for out in model(image))
        assert devices.seen == {"meta"}


@models
def test_only_a_cpu_takes_executors(name: str) -> None:
    model = MODELS[name]()
    with profile(activities=[ProfilerActivity.CPU]) as of_cpu:
        model(torch.zeros(1, 3, 64, 64))
    with profile(activities=[ProfilerActivity.CPU]) as of_meta:
        model.to("meta")(torch.empty(1, 3, 64, 64, device="meta"))
    executors = {"_AddNormMlp"} if "softmax" in name or "windows" in name else EXECUTORS
    assert executors <= {event.key for event in of_cpu.key_averages()}
    assert not EXECUTORS & {event.key for event in of_meta.key_averages()}


FUSED = "aten::scaled_dot_product_attention"


@pytest.mark.parametrize(
    ("dtype", "training", "fused"),
    [
        (torch.float32, True, False),
        (torch.float32, False, True),
        (torch.bfloat16, True, True),
    ],
)
def test_a_gpu_takes_the_fused_kernel_but_to_train_in_float32(
    dtype: torch.dtype, training: bool, fused: bool
) -> None:
    model = small_pvt().to("meta", dtype)
    image = torch.empty(1, 3, 64, 64, device="meta", dtype=dtype)
    recording = profile(activities=[ProfilerActivity.CPU])
    with using(way=None), torch.set_grad_enabled(training), recording as of_meta:
        model(image)
    assert (FUSED in {event.key for event in of_meta.key_averages()}) == fused


def test_no_images_never_reach_a_kernel_that_gives_nothing_for_them() -> None:
    model = small_pvt().to("meta", torch.bfloat16)
    with using(way=None), profile(activities=[ProfilerActivity.CPU]) as of_meta:
        outs = model(torch.empty(0, 3, 64, 64, device="meta", dtype=torch.bfloat16))
    assert FUSED not in {event.key for event in of_meta.key_averages()}
    assert {len(out) for out in outs} == {0}


class Pools(TorchDispatchMode):
    """Notes whether the maps of padded average pools lie in memory channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.contiguous: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.avg_pool2d.default:
            self.contiguous.append(args[0].is_contiguous())
        return func(*args, **(kwargs or {}))


def test_no_padded_pool_gets_channels_last_maps() -> None:
    """Their gradients are wrong on a GPU (torch 2.11): off by up to 10 of numbers of order 1."""
    mixer = build_mixer("aft_conv", 8, 2, kernel=3).to("meta")
    with Pools() as pools:
        mixer(torch.empty(2, 5 * 6, 8, device="meta"), (5, 6))
    assert pools.contiguous == [True, True]


@pytest.mark.parametrize("build", [AgentPVT, AgentSwinTransformer])
def test_models_are_built_on_a_device_without_memory(build: Callable[[], nn.Module]) -> None:
    with torch.device("meta"):
        assert all(p.is_meta for p in build().parameters())
