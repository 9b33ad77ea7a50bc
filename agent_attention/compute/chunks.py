"""Work on a slab of tokens at a time, so that what is made on the way stays in the cache.

A map of 200 x 336 tokens makes hidden layers of 140 MB. A CPU spends longer on writing such a
tensor to fresh memory and reading it back than on the arithmetic, and a training step would keep
it. A slab is small enough to do neither. GPUs take all tokens at once.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_SLAB = 1 << 21  # numbers of a slab's largest tensor: 8 MiB of float32, part of a shared cache
_FEWEST = 64  # tokens of a slab: fewer make matrix products slow


def slabs(count: int, width: int, tokens: int = 1) -> Iterator[slice]:
    """Equal parts of ``count`` groups of ``tokens``; ``width`` numbers are made for a token."""
    most = max(1, max(_FEWEST, _SLAB // width) // tokens)
    step = -(-count // -(-count // most)) if count else 1
    return (slice(i, min(i + step, count)) for i in range(0, count, step))


def wants_slabs(x: Tensor) -> bool:
    """Whether slabs pay: in full precision on a CPU, unless a graph is being recorded."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    full = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and full and not recorded
