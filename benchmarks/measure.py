"""Time, memory and multiply-adds of callables, measured so that they can be compared.

Times of a shared machine drift, so candidates take turns. Memory is that of torch's allocator, see
``agent_toolkit.memory``.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from agent_toolkit.memory import CPU as CPU
from agent_toolkit.memory import allocated as allocated
from agent_toolkit.memory import peak_memory as peak_memory
from agent_toolkit.memory import synchronize as synchronize

Call = Callable[[], Any]


def saved_bytes(forward: Call, device: torch.device = CPU) -> int:
    """Bytes that a forward keeps for its backward pass, whoever keeps them.

    The outputs themselves are let go, and count only where the backward pass needs them.
    """

    def graph() -> list[Any]:
        return [leaf.grad_fn for leaf in tree_leaves(forward()) if isinstance(leaf, Tensor)]

    return allocated(graph, device).held


def times(
    calls: Mapping[str, Call], repeats: int, warm_up: bool = True, settle: bool = False
) -> dict[str, list[float]]:
    """Seconds of each call: one warm-up each, then rounds in which each has one turn.

    With ``settle`` each turn begins with an untimed call: the call before it was another
    candidate's, which leaves the allocator as no run of one model would find it.
    """
    for call in calls.values() if warm_up else ():
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if settle:
                call()
            found[name].append(seconds(call))
    return found


def seconds(call: Call) -> float:
    """Seconds of one call, with what it queued on a GPU."""
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


def matmul_peak(dtype: torch.dtype, device: torch.device, side: int = 2048) -> tuple[Call, int]:
    """A product of two square matrices, to be timed beside the candidates, and its FLOPs."""
    a, b = torch.randn(2, side, side, device=device).to(dtype)

    def product() -> Tensor:
        return a @ b

    return product, 2 * side**3


def multiply_adds(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiply-adds of a forward on images of ``shape`` (B, 3, H, W); takes no time.

    The model is moved to torch's meta device and is of no use afterwards.
    """
    model.eval()  # mmdet's Swin gives None back
    model.to("meta")
    image = torch.empty(shape, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() // 2


def matmul_share(macs: int, took: float, peak: float) -> float:
    """The share of ``peak`` FLOP/s that ``macs`` multiply-adds in ``took`` seconds come to."""
    return 2 * macs / (took * peak)
