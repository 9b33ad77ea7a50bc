"""``swap_attention``: another form in the place of a trained model's softmax attention."""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType

from torch import Tensor, nn

from agent_attention.swap.adapter import Adapter, Row, Size
from agent_attention.swap.families import Found, explain_none, find_attentions
from agent_attention.swap.forms import Form

Where = Callable[[str, nn.Module], bool] | Collection[int] | None
Steps = Mapping[int, Form | None] | int | None


class Swap:
    """A swapped model's handle: what became of each attention, and the way back.

    A copy of a swapped model, by ``copy.deepcopy`` or ``torch.save``, is a swapped model with a
    handle of its own, which ``find_swap`` gives.

    Attributes:
        step: of a diffusion model's denoising steps, the present one; counted by itself.
    """

    def __init__(
        self,
        form: Form | Mapping[str, Form] | None,
        min_tokens: int,
        steps: Steps,
        force: bool,
        training: bool,
        found: Sequence[Found],
        adapters: list[Adapter],
    ) -> None:
        self.form = form
        self.training = training
        self.min_tokens = min_tokens
        self.steps = {0: form, steps: None} if isinstance(steps, int) else steps
        self.force = force
        self.step = 0
        self._time: float | None = None
        self._adapters = adapters
        self._rows = {each.name: Row(each.name, why=each.why or "not asked for") for each in found}

    @property
    def report(self) -> list[Row]:
        """A row an attention, in the model's order, as of its last call."""
        called = {each.name: each.row for each in self._adapters}
        return [called.get(name, row) for name, row in self._rows.items()]

    def form_for(self, name: str, queries: int) -> tuple[Form | None, str]:
        """The form for so many queries at the present step or None, and why."""
        if queries < self.min_tokens:
            return None, f"{queries} tokens are fewer than min_tokens={self.min_tokens}"
        form: Form | Mapping[str, Form] | None = self.form
        if self.steps is not None:
            begun = [step for step in self.steps if step <= self.step]
            form = self.steps[max(begun)] if begun else None
        if isinstance(form, Mapping):
            form = form[name]
        return form, "used" if form is not None else f"softmax at step {self.step}"

    def count_step(self, time: Tensor | float) -> None:
        """A diffusion model is called with a time step; it falls from step to step.

        The same again, as samplers of higher order call it, is no new step, and a later one is
        that of a new image.
        """
        if self.steps is None:  # a tensor is not waited for
            return
        time = float(time.flatten()[0]) if isinstance(time, Tensor) else time
        if self._time is not None and time != self._time:
            self.step = self.step + 1 if time < self._time else 0
        self._time = time

    def remove(self) -> None:
        """Make the model bit for bit what it was; a second call does nothing."""
        for adapter in self._adapters:
            adapter.remove()

    def __enter__(self) -> "Swap":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def __str__(self) -> str:
        """The report as a table."""
        head = ("", "attention", "queries", "keys", "map", "grid", "")
        lines: list[tuple[str, ...]] = [head]
        for i, row in enumerate(self.report):
            sides = ["x".join(map(str, pair)) if pair else "" for pair in (row.map, row.grid)]
            counts = ["" if count is None else str(count) for count in (row.queries, row.keys)]
            lines.append((str(i), row.name, *counts, *sides, row.why))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        text = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join(text)


def swap_attention(
    model: nn.Module,
    form: Form | Mapping[str, Form] | None,
    where: Where = None,
    min_tokens: int = 1024,
    steps: Steps = None,
    size: Size = None,
    force: bool = False,
    training: bool = False,
) -> Swap:
    """Let a trained model's softmax attentions compute another form, with the same weights.

    Nothing is trained and no weight is copied; parameters, their names and the hooks of other
    modules stay. What a swap costs in score has to be measured: it is a trade.

    Args:
        model: in evaluation mode, of a family in ``FAMILIES``; what an attention is in (a backbone,
            a segmentor, a detector) does not matter.
        form: ``Agent()``, ``Nystrom()``, ``PooledKeys()``, or any function of queries, keys, values
            (B, h, T, d), the map's (H, W) and the number of tokens in front of it. A form each by
            the names of attentions, which then are those that are swapped. None: by ``steps``
            alone.
        where: which attentions: a function of name and module, or their numbers in the report,
            which are those of the blocks where each block has one attention. The default is all.
        min_tokens: maps with fewer tokens keep softmax.
        steps: for a diffusion model: the form from a denoising step on, {0: Agent(), 20: None},
            None being softmax; or the step from which on softmax is computed again.
        size: the map's (H, W), a function of the number of tokens, or the name of a module that
            gives maps (B, C, H, W), for models that do not say.
        force: also where it does not pay, to measure errors.
        training: also in training mode, to train the swapped model on; without dropout of
            attention weights.

    Returns:
        The handle: ``report``, ``remove()``; also a context manager.

    Raises:
        ValueError: in training, on a model that is swapped already, if no attention is of a known
            family, or if ``where`` asks for one that cannot be swapped. When the model runs: on
            masks, cross-attention, or a map of unknown size; the message names the attention.
    """
    if find_swap(model) is not None:
        raise ValueError("the model is swapped already: call remove() of that swap first")
    if form is None and not steps:
        raise ValueError("there is no form: pass one such as Agent(), or steps=")
    found = find_attentions(model, size)
    adapters = _select(found, _named(form, found) if isinstance(form, Mapping) else where)
    if not training and any(each.module.training for each in adapters):
        raise ValueError("swap_attention takes a model in evaluation mode: call model.eval() first")
    if steps is not None and not any(each.has_steps for each in adapters):
        raise ValueError("steps= is for diffusion models: no other has denoising steps")
    swap = Swap(form, min_tokens, steps, force, training, found, adapters)
    try:
        for adapter in adapters:
            adapter.install(model, swap)
    except BaseException:
        swap.remove()
        raise
    return swap


def find_swap(model: nn.Module) -> Swap | None:
    """The handle of a swapped model, also of a copied or loaded one; None if it is not swapped."""
    for module in model.modules():
        for value in vars(module).values():
            adapter = getattr(value, "__self__", None)
            if isinstance(adapter, Adapter) and isinstance(adapter.swap, Swap):
                return adapter.swap
    return None


def _named(forms: Mapping[str, Form], found: Sequence[Found]) -> Where:
    """``where`` for attentions that have a form of their own.

    Raises:
        ValueError: if there is none of a name.
    """
    if unknown := sorted(forms.keys() - {each.name for each in found}):
        raise ValueError(f"there is no attention {', '.join(unknown)}")
    return lambda name, _: name in forms


def _select(found: Sequence[Found], where: Where) -> list[Adapter]:
    """Adapters of the attentions that a user asks for.

    Raises:
        ValueError: if there are none, one of them cannot be swapped, or there are no such numbers.
    """
    if where is None:
        chosen = [each for each in found if each.adapter is not None]
    elif callable(where):
        chosen = [each for each in found if where(each.name, each.module)]
    elif not isinstance(where, Collection) or not all(isinstance(i, int) for i in where):
        raise ValueError(f"where is a function of name and module, or numbers; got {where!r}")
    elif unknown := sorted(i for i in where if not 0 <= i < len(found)):
        raise ValueError(f"where has {unknown}, but there are attentions 0 to {len(found) - 1}")
    else:
        chosen = [each for i, each in enumerate(found) if i in where]
    if not chosen:
        raise ValueError(explain_none(found, where is not None))
    for each in chosen:
        if each.adapter is None:
            raise ValueError(f"where asks for {each.name}, which cannot be swapped: {each.why}")
    return [each.adapter for each in chosen if each.adapter is not None]
