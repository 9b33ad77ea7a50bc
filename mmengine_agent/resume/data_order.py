"""A data loader that can begin anywhere, and whose random augmentations follow from the place.

mmengine seeds the workers once, so what a worker draws depends on everything it drew before, on
the number of workers and, without workers, on the model. Here each batch has its own seed, made of
the run's seed, the process and the batch's number, and a run can go on with any batch: what came
before is skipped as indices, no image of it is read.
"""

import atexit
import signal
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, count, islice, repeat
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader, Sampler

from mmengine_agent.resume.random_state import seeded


class Batch(list[int]):
    """The indices of a batch; whoever walks over them draws random numbers of its seed meanwhile.

    Walking is all that a data loader does with a batch: for each index it asks the dataset for a
    sample. So datasets stay what they are, which hooks that change their pipelines rely on.
    """

    def __init__(self, indices: Iterable[int], seed: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        with seeded(self.seed):
            yield from super().__iter__()

    def __reduce__(self) -> Any:
        return Batch, (self[:], self.seed)  # not by walking: a slice is a plain list


class PlacedBatches(Sampler[list[int]]):
    """The batches of a batch sampler, numbered; the first pass can begin after some of them.

    Args:
        batches: the batch sampler.
        seed: of the run, the same in all processes.
        rank: of this process.
        endless: go on with pass after pass, for a loop of iterations.
    """

    def __init__(self, batches: Any, seed: int, rank: int, endless: bool = False) -> None:
        self.batches, self.sampler = batches, batches.sampler
        self.seed, self.rank, self.endless = seed, rank, endless
        self.drawn = 0  # batches so far
        self.skip = 0  # of the next pass, or of all passes where they are endless

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        skip, self.skip = self.skip, 0
        for indices in islice(self._passes() if self.endless else self.batches, skip, None):
            self.drawn += 1
            yield Batch(indices, (self.seed, self.rank, self.drawn))

    def _passes(self) -> Iterator[list[int]]:
        for number in count():
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(number)
            indices = None
            for indices in self.batches:
                yield indices
            if indices is None:  # fewer samples than a batch takes
                return


class LaterBatches(Iterator[Any]):
    """What ``IterBasedTrainLoop`` draws from, when it resumes.

    Args:
        loader: begins after the batches that are to be skipped.
        skip: how many batches the loop draws first to throw them away.
    """

    def __init__(self, loader: DataLoader, skip: int) -> None:
        # the loader starts when its turn comes
        self._batches: Iterator[Any] = chain(repeat(None, skip), loader)
        self._loader = loader

    def skip_iter(self, num_iters: int) -> None:
        """How newer versions of mmengine skip, at once."""
        self._batches = iter(self._loader)

    def __next__(self) -> Any:
        return next(self._batches)


class PlacedLoader(DataLoader):
    """A loader whose workers leave SIGTERM and SIGINT to the main process.

    Slurm and a terminal send them to every process of a job, and a worker that dies of one takes
    the run with it before it could save. Workers end when their iterator is no longer used, when
    the main process exits, or within seconds after it was killed.
    """

    def __iter__(self) -> Any:
        batches = super().__iter__()
        if self.num_workers:
            _in_use.add(batches)
            # the last to be registered is the first to be called: before the worker processes'
            # own exit functions, which send SIGTERM to those that are left, and wait for them
            atexit.unregister(_end_workers)
            atexit.register(_end_workers)
        return batches


_in_use: weakref.WeakSet[Any] = weakref.WeakSet()  # iterators of loaders that have workers


def _end_workers() -> None:
    for batches in list(_in_use):
        batches._shutdown_workers()
        for worker in batches._workers:
            worker.kill()  # nothing but a worker that hangs is left


def ignore_signals(then: Callable[[int], None] | None, worker: int) -> None:
    """Have a worker of that number ignore both signals, and ``then`` do what else is to be done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if then is not None:
        then(worker)


def placed(loader: DataLoader, seed: int, rank: int, endless: bool = False) -> DataLoader:
    """A loader of the same data whose batch sampler is a ``PlacedBatches``, of these arguments.

    Args:
        loader: one that draws batches of indices; their order follows from the seed too.
    """
    batches: Any = loader.batch_sampler
    sampler = batches.sampler
    if type(sampler) is InfiniteSampler:  # it goes on where it was left, so take one of its kind
        batches.sampler = InfiniteSampler(sampler.dataset, sampler.shuffle, seed)
    elif hasattr(sampler, "seed"):
        sampler.seed = seed
    return rebuilt(loader, PlacedBatches(batches, seed, rank, endless))


def rebuilt(loader: DataLoader, batches: Any = None) -> DataLoader:
    """The same loader with workers that ignore signals, and a generator of its own.

    Each start of a loader draws a seed; from the common generator, it would change what the model
    draws. With workers that persist, a resumed run starts loaders more often.
    """
    return PlacedLoader(
        loader.dataset,
        batch_sampler=batches or loader.batch_sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=partial(ignore_signals, loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        generator=torch.Generator().manual_seed(0),
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
