"""A data loader that can begin anywhere, and whose random augmentations follow from the place.

mmengine seeds the workers once, so what a worker draws depends on everything it drew before, on
the number of workers and, without workers, on the model. Here each batch has its own seed, made of
the run's seed, the process and the batch's number, and a run can go on with any batch: what came
before is skipped as indices, no image of it is read.
"""

import atexit
import signal
import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
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
    """

    def __init__(self, batches: Any, seed: int, rank: int) -> None:
        self.batches, self.sampler = batches, batches.sampler
        self.seed, self.rank = seed, rank
        self.start_at(0)

    def start_at(self, drawn: int, passes: int = 0, index: int = 0) -> None:
        """Go on after ``drawn`` batches, in pass ``passes`` with batch ``index``."""
        self.drawn, self.first = drawn, index
        self.passes = passes  # how many times all the data was drawn
        # numbers of the first batches of passes, the newest last: workers are fewer passes ahead
        self.starts = deque([drawn - index], maxlen=1000)

    def place_after(self, drawn: int) -> tuple[int, int]:
        """(pass, index in it) of the batch after the first ``drawn``; workers draw ahead of it."""
        number = bisect_right(self.starts, drawn) - 1
        return self.passes + 1 - len(self.starts) + number, drawn - self.starts[number]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        first, self.first = self.first, 0
        for indices in islice(self.batches, first, None):
            self.drawn += 1
            yield Batch(indices, (self.seed, self.rank, self.drawn))
        self.starts.append(self.drawn)
        self.passes += 1


class EndlessBatches:
    """Batches of a loader, pass after pass: what ``IterBasedTrainLoop`` draws from.

    Args:
        loader: of ``placed``.
        skip: how many batches the loop draws first to throw them away, when it resumes; they cost
            nothing here, because the loader begins after them.
    """

    def __init__(self, loader: DataLoader, skip: int) -> None:
        self._loader, self._skip = loader, skip
        self._batches: Iterator[Any] | None = None

    def skip_iter(self, count: int) -> None:
        """How newer versions of mmengine skip, at once."""
        self._skip = 0

    def __iter__(self) -> "EndlessBatches":
        return self

    def __next__(self) -> Any:
        if self._skip:
            self._skip -= 1
            return None
        if self._batches is None:
            self._batches = self._next_pass()
        try:
            return next(self._batches)
        except StopIteration:
            self._batches = self._next_pass()
            return next(self._batches)

    def _next_pass(self) -> Iterator[Any]:
        batches: Any = self._loader.batch_sampler
        if hasattr(batches.sampler, "set_epoch"):
            batches.sampler.set_epoch(batches.passes)
        return iter(self._loader)


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


def placed(loader: DataLoader, seed: int, rank: int) -> DataLoader:
    """A loader of the same data whose batch sampler is a ``PlacedBatches``.

    Args:
        loader: one that draws batches of indices.
        seed: of the run; the order of the data follows from it too.
    """
    batches: Any = loader.batch_sampler
    sampler = batches.sampler
    if type(sampler) is InfiniteSampler:  # it goes on where it was left, so take one of its kind
        batches.sampler = InfiniteSampler(sampler.dataset, sampler.shuffle, seed)
    elif hasattr(sampler, "seed"):
        sampler.seed = seed
    return rebuilt(loader, PlacedBatches(batches, seed, rank))


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
