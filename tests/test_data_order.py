"""A data loader that begins anywhere, and whose random numbers follow from the place."""

import pickle
import random
from itertools import islice

import numpy as np
import torch
from stop_hooks import scramble
from torch.utils.data import BatchSampler, DataLoader

from mmengine_agent.resume.data_order import Batch, LaterBatches, placed


def drawn(workers: int, index: int = 0) -> list[list[float]]:
    """What a loader gives in a pass that begins with batch ``index``."""
    batches = BatchSampler(range(10), 3, drop_last=False)
    loader = DataLoader(Noisy(), batch_sampler=batches, num_workers=workers, collate_fn=list)
    loader = placed(loader, seed=5, rank=0)
    loader.batch_sampler.drawn = loader.batch_sampler.skip = index
    return list(loader)


class Noisy(torch.utils.data.Dataset):
    """Samples of three random numbers."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[float, ...]:
        return (index + random.random(), float(np.random.rand()), float(torch.rand(())))


def test_what_is_drawn_at_random_follows_from_the_place_alone() -> None:
    scramble()
    before = torch.rand(()), random.random(), np.random.rand()
    scramble()
    whole = drawn(0)
    assert (torch.rand(()), random.random(), np.random.rand()) == before
    assert len({value for batch in whole for sample in batch for value in sample}) == 30
    assert drawn(2) == whole
    assert drawn(2, 2) == drawn(0, 2) == whole[2:]
    assert drawn(0, 4) == []


def test_a_batch_travels_to_a_worker_with_its_seed() -> None:
    batch = pickle.loads(pickle.dumps(Batch([3, 1], (5, 0, 7))))
    assert (batch, batch.seed) == ([3, 1], (5, 0, 7))


def endless(samples: int, skip: int = 0) -> LaterBatches:
    """Batches of two out of some samples, pass after pass, as a loop that resumes draws them."""
    batches = BatchSampler(range(samples), 2, drop_last=True)
    loader = DataLoader(list(range(samples)), batch_sampler=batches, collate_fn=list)
    loader = placed(loader, 0, 0, endless=True)
    loader.batch_sampler.skip = skip
    return LaterBatches(loader, skip)


def test_passes_over_the_data_follow_each_other() -> None:
    assert [*islice(endless(5), 3)] == [[0, 1], [2, 3], [0, 1]]
    assert [*islice(endless(5, skip=3), 5)] == [None, None, None, [2, 3], [0, 1]]
    newer = endless(5, skip=3)
    newer.skip_iter(3)
    assert next(newer) == [2, 3]


def test_data_without_a_batch_ends_at_once() -> None:
    assert [*endless(1)] == []
