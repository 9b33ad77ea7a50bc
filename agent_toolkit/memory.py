"""What torch's allocator holds at most while something runs.

On the CPU it is replayed from the profiler's record of each allocation and is the same in each
run; scratch memory that a library takes past the allocator is in no figure.
"""

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile, record_function

Call = Callable[[], Any]
CPU = torch.device("cpu")
_RETURNED = "agent_toolkit.returned"  # the profiler's mark where a call has returned


def synchronize() -> None:
    """Wait for the GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


class Allocated(NamedTuple):
    """Bytes in torch's allocator above what was there before a call."""

    peak: int
    held: int  # when the call has returned, as long as its result is kept


def peak_memory(call: Call, device: torch.device = CPU) -> int:
    """The most bytes that torch's allocator held during a call, above what it held before."""
    return allocated(call, device).peak


def allocated(call: Call, device: torch.device = CPU) -> Allocated:
    """Peak and balance of the allocator; what was there before is not counted when it is freed."""
    gc.collect()
    return _allocated_on_gpu(call) if device.type == "cuda" else _allocated_on_cpu(call)


def _allocated_on_gpu(call: Call) -> Allocated:
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated() - before
    del result
    return Allocated(torch.cuda.max_memory_allocated() - before, held)


def _allocated_on_cpu(call: Call) -> Allocated:
    with _silent_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as done:
        result = call()
        with record_function(_RETURNED):
            pass
        del result  # while the profiler runs, which would take a later block there for this one
    assert done.profiler is not None and done.profiler.kineto_results is not None
    balance = peak = held = 0
    for event in sorted(done.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            balance += event.nbytes()
            peak = max(peak, balance)
        elif event.name() == _RETURNED:
            held = balance
    return Allocated(peak, held)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what the profiler's library writes to the process's stderr at each start and stop."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
