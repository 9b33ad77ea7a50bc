"""The random states of Python, NumPy and torch: read, set, and lent for a while."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """All states of this process, as tensors, numbers and lists, which any safe reader takes."""
    array: Any = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [each.tolist() if isinstance(each, np.ndarray) else each for each in array],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to what ``random_state`` gave."""
    random.setstate(state["python"])
    np.random.set_state(tuple(state["numpy"]))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def seeded(numbers: Sequence[int]) -> Iterator[None]:
    """Random numbers that follow from some numbers >= 0 alone; afterwards the states are as before.

    On the GPU nothing changes: data is prepared on the CPU.
    """
    python, array, tensor = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(list(numbers)).generate_state(8).tolist()
    random.seed(words[0] << 32 | words[1])
    np.random.seed(words[2:6])
    torch.default_generator.manual_seed(words[6] << 31 | words[7] >> 1)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(tensor)
