"""Whether an executor may compute in the place of plain modules: the one place that decides.

An executor gives the numbers of the definition in less time or memory. For that it reads a layer's
weights instead of calling the layer, and it writes into memory that is already there. Both are
right only while every layer is exactly what its class says and while nobody watches: no hook, no
adapter, no transform, no recorder. In any doubt the modules run, as they do in any other model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

Part = tuple[nn.Module, type[nn.Module]]


class Settings(NamedTuple):
    """How executors work, and the one table of sizes at which they change it; see ``using``.

    The sizes were the quickest from 256 x 320 to 800 x 1344 pixels on 2 virtual cores of an AMD
    EPYC (Zen 4, AVX-512) with torch 2.13 in float32 (docs/performance.md). On another machine
    ``benchmarks/tune.py`` finds them anew.
    """

    way: str | None = None  # 'plain': definitions alone; the others: see ``attend``
    few: int = 1 << 20  # scores of a sample, below which they are made at once and kept
    chunk: int = 1 << 21  # numbers of a chunk's largest tensor: 8 MiB of float32
    kept: int = 1 << 23  # numbers of a hidden layer that is kept for the backward pass
    # numbers of a sample's tokens, from which on a mixer works in chunks
    focused: int = 1 << 17
    norm: int = 1 << 20
    aft_conv: int = 1 << 17


_settings: ContextVar[Settings] = ContextVar("agent_attention", default=Settings())  # noqa: B039


def settings() -> Settings:
    """The settings that hold here, in this thread."""
    return _settings.get()


@contextmanager
def using(**changes: str | int | None) -> Iterator[None]:
    """Change fields of ``Settings`` in this thread while the context is open.

    ``using(way="plain")`` switches all executors off: what runs then is the definition, made of
    ordinary operations, each of which can be differentiated any number of times.
    """
    token = _settings.set(settings()._replace(**changes))  # type: ignore[arg-type]
    try:
        yield
    finally:
        _settings.reset(token)


def is_recording() -> bool:
    """Whether a graph is being recorded: compiled, exported or traced."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_transformed() -> bool:
    """Whether operations are transformed, by ``torch.func`` or by forward differentiation."""
    return (
        torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    )


def is_watched() -> bool:
    """Whether something looks at single operations: a recorder, a transform, a counter."""
    if is_recording() or is_transformed() or torch._C._len_torch_dispatch_stack():
        return True
    return any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack())


def is_ordinary(x: Tensor) -> bool:
    """Whether a tensor is of torch's own type, and not quantised, sharded or fake."""
    return type(x) in (Tensor, nn.Parameter)


def is_for_cpu(x: Tensor) -> bool:
    """Whether a tensor is an ordinary one of full precision on the CPU."""
    full = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return is_ordinary(x) and x.device.type == "cpu" and full


def is_half_on_cpu(x: Tensor) -> bool:
    """Whether a tensor is an ordinary one of half precision on the CPU, where nobody watches."""
    half = x.dtype in (torch.float16, torch.bfloat16) and x.device.type == "cpu"
    return half and is_ordinary(x) and settings().way is None and not is_watched()


def may_replace(x: Tensor, *parts: Part) -> bool:
    """Whether an executor may compute what modules do with ``x``.

    Args:
        x: the input.
        parts: every module whose call the executor skips, and the class that it counts on.
    """
    if is_watched() or settings().way == "plain" or not is_for_cpu(x):
        return False
    return not torch_module._has_any_global_hook() and all(is_exact(*part) for part in parts)


def define(kind: type[nn.Module], *methods: str) -> None:
    """Note how a class computes, so that later changes of it are seen."""
    _DEFINED[kind] = {name: getattr(kind, name) for name in ("forward", *methods)}


def has_defined(module: nn.Module, kind: type[nn.Module], *methods: str) -> bool:
    """Whether a module, perhaps of a subclass, has methods as a class was defined with them."""
    defined, own = _DEFINED[kind], vars(module)
    return all(name not in own and getattr(type(module), name) is defined[name] for name in methods)


def is_exact(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module computes what a class was defined to, from ordinary weights, unhooked.

    Subclasses are not exact (adapters, parametrizations), nor are modules with a ``forward`` of
    their own (offloading), classes patched since they were defined, weights that are subclasses of
    tensors (quantised, sharded), or classes that are not known here.
    """
    defined = _DEFINED.get(kind)
    if type(module) is not kind or not defined or not vars(module).keys().isdisjoint(defined):
        return False
    hooked = (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
    if hooked or any(getattr(kind, name) is not each for name, each in defined.items()):
        return False
    return all(w is None or is_ordinary(w) for w in module._parameters.values())


_DEFINED: dict[type[nn.Module], dict[str, object]] = {}
for _layer in (nn.Linear, nn.LayerNorm, nn.GELU, nn.Dropout, nn.Conv2d):
    define(_layer)
