"""Parts of a model that ``torch.compile`` compiles once for all of their kind."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.compute.operators import is_compiling


def compiled_once(block: nn.Module, x: Tensor, size: Pair) -> Tensor:
    """``block(x, size)``; in a compiled graph all blocks of one kind share their code.

    A stage has up to 29 equal blocks, and to compile each takes seconds.
    """
    out: Tensor = _region(block, x, size) if is_compiling() else _run(block, x, size)
    return out


def _run(block: nn.Module, x: Tensor, size: Pair) -> Tensor:
    out: Tensor = block(x, size)
    return out


def _find_region() -> Any:
    """``_run`` as torch compiles once; where an older torch cannot, as it compiles anything."""
    mark = getattr(torch.compiler, "nested_compile_region", None)
    if mark is None or "max_reuse_entries" not in inspect.signature(mark).parameters:
        return _run
    return mark(_run, max_reuse_entries=1000)  # kinds of blocks, each of which is compiled


_region = _find_region()
