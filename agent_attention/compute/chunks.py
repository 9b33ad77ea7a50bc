"""Work on a chunk of tokens at a time, so that what is made on the way stays in the cache.

A map of 200 x 336 tokens makes hidden layers of 140 MB. A CPU spends longer on writing such a
tensor to fresh memory and reading it back than on the arithmetic, and a training step would keep
it. A chunk is small enough to do neither. GPUs take all tokens at once.
"""

import math
from collections.abc import Iterator

from agent_attention.compute.guard import settings

_FEWEST = 64  # tokens of a chunk: fewer make matrix products slow


def row_chunks(rows: int, width: int, columns: int = 1) -> Iterator[slice]:
    """Slices of rows, equal in size, whose largest tensor stays below ``settings().chunk``.

    Args:
        rows: how many there are.
        width: numbers that are made for a token.
        columns: tokens of a row.
    """
    most = settings().chunk
    tokens = max(most // width, min(_FEWEST, most))
    parts = math.ceil(rows / max(1, tokens // columns))
    step = math.ceil(rows / parts) if parts else 1
    return (slice(i, min(i + step, rows)) for i in range(0, rows, step))
