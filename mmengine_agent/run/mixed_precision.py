"""Mixed precision: in which numbers, by the device, and mmengine's wrapper for a CPU."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mmengine_agent.errors import UserError
from mmengine_agent.task import task_of

# instructions that multiply bfloat16: those of x86-64 and of ARM, by torch's names
_FAST = ("avx512_bf16", "amx_bf16", "amx_tile", "bf16", "sve_bf16")


def set_amp(cfg: Config) -> None:
    """Mixed precision: bfloat16, or float16 with dynamic loss scaling on GPUs that lack it.

    Raises:
        UserError: for a detector on a CPU.
    """
    wrapper = cfg.optim_wrapper
    if get_device() == "cpu":
        if task_of(cfg).name == "detection":
            raise UserError("--amp: detectors train so on a GPU alone; on a CPU leave it out")
        wrapper.type = "CPUAmpOptimWrapper"
        for key in ("dtype", "loss_scale", "use_fsdp"):  # of mmengine's wrapper
            wrapper.pop(key, None)
        if not has_fast_bfloat16() and is_main_process():
            text = "this CPU has no instructions for bfloat16, so that steps take longer with it"
            print(f"warning: --amp: {text} than without", file=sys.stderr)
        return
    wrapper.type = "AmpOptimWrapper"
    if torch.cuda.is_bf16_supported():
        wrapper.dtype = "bfloat16"
    else:
        wrapper.setdefault("loss_scale", "dynamic")


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 by instructions made for it, as far as torch knows."""
    if hasattr(torch.cpu, "get_capabilities"):
        return any(torch.cpu.get_capabilities().get(name) for name in _FAST)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@OPTIM_WRAPPERS.register_module(force=True)
class CPUAmpOptimWrapper(OptimWrapper):
    """Losses under autocast to bfloat16 on the CPU; mmengine's ``AmpOptimWrapper`` wants a GPU.

    bfloat16 has the range of float32, so that no loss is scaled.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast; mmcv's operations, which know no bfloat16 on a CPU, get float32."""
        with ExitStack() as stack:
            stack.enter_context(super().optim_context(model))
            for module in model.modules():
                if type(module).__module__.startswith("mmcv.ops."):
                    stack.enter_context(_in_float32(module))
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            yield


@contextmanager
def _in_float32(module: nn.Module) -> Iterator[None]:
    """Have a module compute in float32, and answer in the type that it is asked in."""
    forward: Callable[..., Any] = module.forward

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            found = forward(*tree_map(_to_float, (x, *args)), **tree_map(_to_float, kwargs))
        return tree_map(lambda y: y.to(x.dtype) if isinstance(y, Tensor) else y, found)

    module.forward = run
    try:
        yield
    finally:
        del module.forward


def _to_float(x: Any) -> Any:
    return x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x
