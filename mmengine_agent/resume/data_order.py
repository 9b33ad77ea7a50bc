"""A data loader that can begin anywhere, and whose random augmentations follow from the place.

mmengine seeds the workers once, so what a worker draws depends on everything it drew before, on
the number of workers and, without workers, on the model. Here each batch has its own seed, made of
the run's seed, the process and the batch's number, and a run can go on with any batch: what came
before is skipped as indices, no image of it is read.
"""

import os
import signal
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import DataLoader, Sampler

from mmengine_agent.resume.random_state import seeded

_PASSES = 1000  # at least so many are remembered; workers are fewer batches ahead


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
        self.drawn, self.first, self.first_pass = drawn, index, passes
        self.starts = [drawn - index]  # number of the first batch of each pass since first_pass

    @property
    def passes(self) -> int:
        """How many times all the data was drawn."""
        return self.first_pass + len(self.starts) - 1

    def place_after(self, drawn: int) -> tuple[int, int]:
        """(pass, index in it) of the batch after the first ``drawn``; workers draw ahead of it."""
        number = bisect_right(self.starts, drawn) - 1
        return self.first_pass + number, drawn - self.starts[number]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        first, self.first = self.first, 0
        for indices in islice(self.batches, first, None):
            self.drawn += 1
            yield Batch(indices, (self.seed, self.rank, self.drawn))
        self.starts.append(self.drawn)
        if len(self.starts) > 2 * _PASSES:
            self.first_pass += _PASSES
            del self.starts[:_PASSES]


class EndlessBatches:
    """Batches of a loader, pass after pass: what ``IterBasedTrainLoop`` draws from.

    Args:
        loader: of ``placed``.
        owed: how many batches the loop draws first to throw them away, when it resumes; they cost
            nothing here, because the loader begins after them.
    """

    def __init__(self, loader: DataLoader, owed: int) -> None:
        self._loader, self._owed = loader, owed
        self._batches: Iterator[Any] | None = None

    def skip_iter(self, count: int) -> None:
        """How newer versions of mmengine skip, at once."""
        self._owed = 0

    def __iter__(self) -> "EndlessBatches":
        return self

    def __next__(self) -> Any:
        if self._owed:
            self._owed -= 1
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


def start_worker(then: Callable[[int], None] | None, worker: int) -> None:
    """Have a worker ignore SIGINT, and SIGTERM unless its main process sends it.

    Slurm and a terminal send them to every process of a job. A worker that dies of one takes the
    run with it before it could save; without its main process a worker ends by itself. SIGTERM
    cannot be ignored altogether: the main process sends it at its own end, and waits.

    Args:
        then: what else is to be done when a worker starts.
        worker: its number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # only there is known who sent it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for_parent, daemon=True).start()
    if then is not None:
        then(worker)


def _end_for_parent() -> None:
    """Wait for SIGTERM from the main process, and exit; with 0, or torch reports a failure."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


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
    own = torch.Generator().manual_seed(0)
    return DataLoader(
        loader.dataset,
        batch_sampler=batches or loader.batch_sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=partial(start_worker, loader.worker_init_fn),
        multiprocessing_context=loader.multiprocessing_context,
        generator=own,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
