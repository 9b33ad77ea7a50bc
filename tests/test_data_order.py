"""A data loader that begins anywhere, and whose random numbers follow from the place."""

import pickle
import random

import numpy as np
import torch
from stop_hooks import scramble
from torch.utils.data import BatchSampler, DataLoader

from mmengine_agent.resume.data_order import Batch, EndlessBatches, PlacedBatches, placed


def drawn(workers: int, index: int = 0, passes: int = 0) -> list[list[float]]:
    """What a loader gives in a pass that begins with batch ``index``."""
    batches = BatchSampler(range(10), 3, drop_last=False)
    loader = DataLoader(Noisy(), batch_sampler=batches, num_workers=workers, collate_fn=list)
    loader = placed(loader, seed=5, rank=0)
    loader.batch_sampler.start_at(index, passes, index)
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


def test_passes_over_the_data_are_counted_as_they_are_used() -> None:
    batches = BatchSampler(range(5), 2, drop_last=False)
    loader = placed(DataLoader(list(range(5)), batch_sampler=batches, collate_fn=list), 0, 0)
    endless = EndlessBatches(loader, skip=0)
    assert [next(endless) for _ in range(4)] == [[0, 1], [2, 3], [4], [0, 1]]
    assert [loader.batch_sampler.place_after(done) for done in (2, 3, 4)] == [
        (0, 2),
        (1, 0),
        (1, 1),
    ]


def test_many_passes_over_the_data_take_no_more_memory() -> None:
    batches = BatchSampler(range(2), 2, drop_last=False)
    placed_batches = PlacedBatches(batches, 0, 0)
    for done in range(5000):
        assert placed_batches.place_after(done) == (done, 0)
        list(placed_batches)
    assert placed_batches.passes == 5000 and len(placed_batches.starts) < 2500
