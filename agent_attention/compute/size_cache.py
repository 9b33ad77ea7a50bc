"""Caches of tensors that depend on a map's size.

A result that depends on tables too is kept with a copy of them and given again only while the
tables are equal to the copy, number by number. So no write to a weight can make it stale: not one
of an optimizer, through ``weight.data``, or through a NumPy view. To compare tables costs a
hundredth of what it costs to resize them.
"""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from agent_attention.compute.guard import is_ordinary, is_watched, settings

Tensors = tuple[Tensor, ...]
Function = TypeVar("Function", bound=Callable[..., Tensor])
Kept = OrderedDict[Hashable, tuple[Tensors, Tensors]]  # by key: copies of tables, result


class SizeCache:
    """Results by key for each table, on the CPU, for use without gradients.

    The oldest results of a table go first, and all of them with the table itself.

    Args:
        most: bytes kept for a table.
    """

    def __init__(self, most: int = 24 * 2**20) -> None:
        self.most = most
        self._kept = WeakTensorKeyDictionary()  # a ``Kept`` for each table
        self._lock = threading.Lock()

    def __call__(
        self, make: Callable[[], Tensors], tables: Sequence[Tensor], key: Hashable
    ) -> Tensors:
        """``make()``, or what it gave before for the same key and tables of the same numbers.

        Args:
            make: computes tensors from the tables.
            tables: all that the result depends on but the key; the first is never a view.
            key: such as the map's size (H, W).
        """
        needs_graph = torch.is_grad_enabled() and any(t.requires_grad for t in tables)
        on_cpu = all(is_ordinary(t) and t.device.type == "cpu" for t in tables)
        if needs_graph or not on_cpu or is_watched() or settings().way == "plain":
            return make()
        with self._lock:
            kept: Kept = self._kept.setdefault(tables[0], OrderedDict())
            copies, made = kept.get(key, ((), ()))
            if not (len(copies) == len(tables) and all(map(_equal, copies, tables))):
                # what is kept must be of use to training as well
                with torch.inference_mode(False), torch.no_grad():
                    copies = tuple(t.clone() for t in tables)
                    made = tuple(t.detach() for t in make())
                kept[key] = copies, made
            kept.move_to_end(key)
            while _nbytes(kept) > self.most:
                kept.popitem(last=False)
        return made

    def nbytes(self, table: Tensor) -> int:
        """Bytes kept for a table."""
        return _nbytes(self._kept.get(table, OrderedDict()))


def pure(function: Function) -> Function:
    """Keep the tensors that a function of sizes, types and devices alone has made."""
    kept = functools.lru_cache(maxsize=256)(function)

    @functools.wraps(function)
    def cached(*args: Hashable) -> Tensor:
        # a tensor made while a graph is recorded may have no numbers
        if is_watched() or settings().way == "plain":
            return function(*args)
        with torch.inference_mode(False), torch.no_grad():
            return kept(*args)

    return cached  # type: ignore[return-value]


def _equal(copy: Tensor, table: Tensor) -> bool:
    return copy.dtype == table.dtype and torch.equal(copy, table)


def _nbytes(kept: Kept) -> int:
    tensors = (t for copies, made in kept.values() for t in (*copies, *made))
    return sum(t.untyped_storage().nbytes() for t in tensors)


cached = SizeCache()
