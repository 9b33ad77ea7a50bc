"""Parts of a model that ``torch.compile`` compiles once for all of their kind."""

import torch
from torch import Tensor, nn

from agent_attention.arguments import Pair
from agent_attention.compute.operators import is_compiling


def compiled_once(block: nn.Module, x: Tensor, size: Pair) -> Tensor:
    """``block(x, size)``; in a compiled graph all blocks of one kind share their code.

    A stage has up to 27 equal blocks, and to compile each takes seconds.
    """
    return _region(block, x, size) if is_compiling() else _run(block, x, size)


def _run(block: nn.Module, x: Tensor, size: Pair) -> Tensor:
    out: Tensor = block(x, size)
    return out


_region = torch.compiler.nested_compile_region(_run, max_reuse_entries=1000)
