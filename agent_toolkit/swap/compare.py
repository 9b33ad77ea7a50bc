"""How far a form's attention is from softmax, layer by layer, on the same inputs."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from agent_attention.swap import swap_attention
from agent_attention.swap.families import find_attentions
from agent_toolkit.memory import synchronize

# (queries, keys, values (B, h, T, d), size of the map, tokens before it) -> (B, h, T, d)
Form = Callable[..., Tensor]


class Local(NamedTuple):
    """Of a form in a layer whose input is the softmax model's own."""

    error: float  # ||O' - O|| / ||O|| over the tokens of the map
    cosine: float  # mean cosine of what a head gives
    cost: float  # its time as a share of fused softmax's


def fused_softmax(q: Tensor, k: Tensor, v: Tensor, size: Any, extra: int) -> Tensor:
    """What every form stands for, by torch's fused kernel: a form itself."""
    return F.scaled_dot_product_attention(q, k, v)


class Comparison:
    """A form that gives softmax, and compares others with it on the same inputs."""

    def __init__(self, forms: Mapping[str, Form]) -> None:
        self.forms = forms
        self.tokens = (0, 0)  # queries and keys of the last input
        self._sums = {name: torch.zeros(3, dtype=torch.double) for name in forms}
        self._seconds = dict.fromkeys(["softmax", *forms], math.inf)
        self._count = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, size: Any, extra: int) -> Tensor:
        out = self._timed("softmax", fused_softmax, q, k, v, size, extra)
        wanted = out[:, :, extra:].float()
        for name, form in self.forms.items():
            found = self._timed(name, form, q, k, v, size, extra)[:, :, extra:].float()
            cosines = F.cosine_similarity(found, wanted, dim=-1)
            sums = [(found - wanted).square().sum(), wanted.square().sum(), cosines.sum()]
            self._sums[name] += torch.stack(sums).double().cpu()
        self._count += wanted[..., 0].numel()
        self.tokens = (q.shape[2], k.shape[2])
        return out

    def _timed(self, name: str, form: Form, *inputs: Any) -> Tensor:
        """What a form gives; its least time is kept, of two calls, as the first may be cold."""
        for _ in range(2):
            start = now()
            out = form(*inputs)
            self._seconds[name] = min(self._seconds[name], now() - start)
        return out

    def figures(self) -> dict[str, Local]:
        """By form, over all inputs so far; none if the layer did not run."""
        whole = self._seconds["softmax"]
        return {
            name: Local(
                float((off / size).sqrt()), float(cosine) / self._count, self._seconds[name] / whole
            )
            for name, (off, size, cosine) in self._sums.items()
            if self._count
        }


def now() -> float:
    """Seconds, with what was queued on a GPU done."""
    synchronize()
    return time.perf_counter()


def find_layers(model: nn.Module) -> list[str]:
    """Names of the attentions of a model that can be swapped, in the order of its modules."""
    return [each.name for each in find_attentions(model) if each.adapter is not None]


def compare_locally(
    model: nn.Module, layers: Iterable[str], forms: Mapping[str, Form], run: Callable[[], Any]
) -> dict[str, Comparison]:
    """Compare forms with softmax in each layer, by itself: the model stays softmax.

    Args:
        model: in evaluation mode.
        layers: names of its attentions, as ``swap_attention`` reports them.
        forms: by name.
        run: has the model see some images.
    """
    comparisons = {layer: Comparison(forms) for layer in layers}
    with swapped(model, comparisons):
        run()
    return comparisons


def swapped(
    model: nn.Module, choice: Mapping[str, Form | None]
) -> contextlib.AbstractContextManager[Any]:
    """A context in which layers have the form that is chosen for them; None leaves softmax.

    Args:
        model: the model.
        choice: by the layers' names; forms are taken also where they do not pay.
    """
    forms = {layer: form for layer, form in choice.items() if form is not None}
    if not forms:
        return contextlib.nullcontext()
    return swap_attention(model, forms, min_tokens=0, force=True)
