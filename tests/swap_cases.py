"""What holds for every family whose attention is swapped: for pytest, and for ``make clients``.

Numbers are relative to the largest that softmax attention gives.
"""

import copy
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from agent_attention.swap import Agent, Nystrom, PooledKeys, Swap, find_swap, swap_attention

FORCED: dict[str, Any] = {"min_tokens": 0, "force": True}


class Case(NamedTuple):
    """A small model of a family, and how it is called."""

    model: nn.Module  # in evaluation mode
    call: Callable[[nn.Module], Any]  # the model with an image
    attend: Callable[[nn.Module, Tensor], Any]  # one attention with tokens (B, T, C)
    options: dict[str, Any] = {}  # noqa: RUF012  of swap_attention

    def swap(self, form: Any, **options: Any) -> Swap:
        """A swap of all attentions, whether it pays or not."""
        return swap_attention(self.model, form, **{**FORCED, **self.options, **options})

    def outputs(self, model: nn.Module | None = None) -> list[Tensor]:
        """All tensors that the model gives."""
        with torch.no_grad():
            return tensors_of(self.call(model or self.model))


def whole_map(size: tuple[int, int]) -> tuple[int, int]:
    """The grid with a landmark for each token."""
    return size


def prepare(model: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model in evaluation mode, with weights that make attention neither flat nor a choice."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in sorted(model.named_parameters()):
        nn.init.normal_(weight, std=0.2, generator=generator)
        if "norm" in name and name.endswith("weight"):
            nn.init.normal_(weight, 1.0, 0.1, generator=generator)
    model.eval()  # which mmseg's ViT returns nothing from
    return model.to(dtype)


def tensors_of(out: Any) -> list[Tensor]:
    """The tensors of a tensor, a tuple, or an output of transformers or diffusers."""
    if isinstance(out, Tensor):
        return [out]
    values = out.values() if hasattr(out, "values") else out or ()
    return [each for value in values for each in tensors_of(value)]


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest, relative to the largest number wanted."""
    pairs = zip(found, wanted, strict=True)
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def state_of(model: nn.Module) -> list[Any]:
    """Everything that a swap might leave behind: attributes, hooks, keys and weights' addresses."""
    modules = [
        (name, sorted(vars(module)), {**module._forward_hooks}, {**module._forward_pre_hooks})
        for name, module in model.named_modules()
    ]
    weights = {name: weight.data_ptr() for name, weight in model.state_dict().items()}
    return [modules, weights, [*model.state_dict()]]


def check_whole_maps(case: Case) -> dict[str, float]:
    """Pooled keys and Nyström on the map's own grid: how far they are from softmax."""
    wanted, found = case.outputs(), {}
    for form in (PooledKeys(whole_map), Nystrom(whole_map)):
        with case.swap(form) as swap:
            found[type(form).__name__] = difference(case.outputs(), wanted)
            assert any(row.used for row in swap.report), swap
            assert all(row.used for row in swap.report if row.queries), swap
    return found


def check_constant_tokens(case: Case) -> float:
    """With tokens that are all alike every form is softmax, in each single attention."""
    worst = 0.0
    for form in (Agent((2, 2), shortcut=0), Nystrom((2, 2)), PooledKeys((2, 2))):
        with case.swap(form) as swap, torch.no_grad():
            case.call(case.model)
            rows = [row for row in swap.report if row.used]
            found = [case.attend(*constant_tokens(case, row.name, row.queries)) for row in rows]
        with torch.no_grad():
            wanted = [case.attend(*constant_tokens(case, row.name, row.queries)) for row in rows]
        worst = max(worst, difference(tensors_of(found), tensors_of(wanted)))
    return worst


def constant_tokens(case: Case, name: str, count: int) -> tuple[nn.Module, Tensor]:
    """An attention, and tokens (2, T, C) for it."""
    module = case.model.get_submodule(name)
    weights = [weight for weight in module.parameters() if weight.dim() == 2]
    token = torch.linspace(-1, 1, weights[0].shape[1], dtype=weights[0].dtype)
    return module, token.expand(2, count, -1)


def check_removal(case: Case) -> float:
    """A removed swap leaves the model and its outputs bit for bit; how far the swap was off."""
    before, wanted = state_of(case.model), case.outputs()
    swap = case.swap(Agent((2, 2)))
    assert state_of(case.model)[1:] == before[1:]
    swapped = case.outputs()
    for copied in (copy.deepcopy(case.model), saved_and_loaded(case.model)):
        assert difference(case.outputs(copied), swapped) == 0
        other = find_swap(copied)
        assert other is not None and other is not swap
        other.remove()
        assert difference(case.outputs(copied), wanted) == 0 and find_swap(copied) is None
    assert difference(case.outputs(), swapped) == 0  # the copies have taken nothing with them
    swap.remove()
    with case.swap(Agent((2, 2)), min_tokens=10**6):  # the softmax of a copy is its own
        left = case.outputs()
        for copied in (copy.deepcopy(case.model), saved_and_loaded(case.model)):
            assert difference(case.outputs(copied), left) == 0
    assert state_of(case.model) == before and find_swap(case.model) is None
    assert difference(case.outputs(), wanted) == 0
    return difference(swapped, wanted)


def saved_and_loaded(model: nn.Module) -> nn.Module:
    """A model as ``torch.save`` and ``torch.load`` give it back."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: nn.Module = torch.load(file, weights_only=False)
    return loaded
