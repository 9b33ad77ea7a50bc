"""For every test."""

import os

# Before torch is imported: a pool of threads does not survive a fork, and tests fork.
os.environ["OMP_NUM_THREADS"] = "1"

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from agent_attention.compute.guard import using


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test that passed once passes again: pipelines crop and flip, and layers initialise."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def always_tiles() -> Iterator[None]:
    """Attention in tiles for small tensors too, where one fused call would be quicker."""
    with using(way="tiled"):
        yield
