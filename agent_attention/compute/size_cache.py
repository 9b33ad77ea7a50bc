"""Keeps what depends on a map's size and on weights alone, while neither changes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="BySize")
Tensors = tuple[Tensor, ...]
_MOST = 24 * 2**20  # bytes kept by one module


class BySize(nn.Module):
    """Tensors by map size and the like, kept in evaluation mode; in training made each time.

    What is kept goes when a weight is replaced or written to, and with every call of ``train`` or
    ``eval``: writes through ``weight.data``, as averaged weights are swapped in, leave no trace.
    The oldest results go first when a new one does not fit into the memory allowed.

    Args:
        most: bytes that may be kept.
    """

    def __init__(self, most: int = _MOST) -> None:
        super().__init__()
        self.most = most
        self._kept: OrderedDict[Hashable, Tensors] = OrderedDict()
        self._weights: Tensors = ()
        self._versions: list[int] = []

    def forward(
        self, key: Hashable, weights: Sequence[Tensor], make: Callable[[], Tensors]
    ) -> Tensors:
        """``make()``, or what it gave before for the same key and weights.

        Args:
            key: all that the result depends on beside the weights, such as the map's size (H, W).
            weights: tensors it depends on; at least one.
            make: computes it.
        """
        needs_graph = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
        if self.training or needs_graph or not _watchable(weights):
            return make()
        self._forget_other(weights)
        if key not in self._kept:
            # what is kept must be of use to training as well
            with torch.inference_mode(False), torch.no_grad():
                return self._keep(key, make())
        self._kept.move_to_end(key)
        return self._kept[key]

    def train(self: Self, mode: bool = True) -> Self:
        """Set the mode, forget everything, return self."""
        self.clear()
        return super().train(mode)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._weights = ()

    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return sum(map(_nbytes, self._kept.values()))

    def _keep(self, key: Hashable, made: Tensors) -> Tensors:
        if _nbytes(made) <= self.most:
            self._kept[key] = made
            while self.nbytes() > self.most:
                self._kept.popitem(last=False)
        return made

    def _forget_other(self, weights: Sequence[Tensor]) -> None:
        versions = [w._version for w in weights]
        places = [w.data_ptr() for w in weights]
        if versions != self._versions or places != [w.data_ptr() for w in self._weights]:
            self.clear()
            self._versions = versions
            # holding the memory itself, so that no other weights can come to its place
            self._weights = tuple(w.detach() for w in weights)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and saved modules start with nothing kept."""
        return {**self.__dict__, "_kept": OrderedDict(), "_weights": ()}


def _watchable(weights: Sequence[Tensor]) -> bool:
    """Whether changes can be seen: not while a graph is recorded, nor in fake tensors and such."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return all(type(w) in (Tensor, nn.Parameter) and not w.is_inference() for w in weights)


def _nbytes(tensors: Tensors) -> int:
    return sum(t.untyped_storage().nbytes() for t in tensors)
