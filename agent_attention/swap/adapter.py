"""What adapters share: how one attention of a model is made to compute a form.

An adapter replaces one attribute of its module, such as ``forward``, by a method of its own, and
asks other modules for the size of the map by hooks. Weights, parameter names and other hooks stay
as they are, and all is put back by ``remove``. Classes are known by name, so that no package of
theirs is imported.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from agent_attention.arguments import Pair
from agent_attention.swap.forms import takes_tokens
from agent_attention.swap.landmarks import key_map

Size = Pair | Callable[[int], Pair] | str | None
_MOST_EXTRA = 16  # tokens in front of a map: class and distillation tokens, and registers


class Row(NamedTuple):
    """What became of one attention, the last time that it was called."""

    name: str
    queries: int | None = None  # tokens
    keys: int | None = None
    map: Pair | None = None  # (H, W) of the queries
    grid: Pair | None = None  # (rows, columns) of landmarks
    used: bool = False
    why: str = "not called yet"  # used, or why not


class Chooser(Protocol):
    """What an adapter asks for a form: the handle of the swap."""

    force: bool
    training: bool

    def form_for(self, name: str, queries: int) -> tuple[Any, str]:
        """The form for so many queries or None, and why."""

    def count_step(self, time: Any) -> None:
        """Note the time step that a diffusion model is called with, a number or a tensor."""


class Adapter:
    """One attention of a model; a family's adapter says what is replaced, and with what.

    Args:
        name: of the module within the model.
        module: the attention.
        model: the model.
        size: what the user says of the map's size: a pair, a function of the number of tokens, the
            name of a module that gives maps (B, C, H, W), or nothing.
    """

    attribute: ClassVar[str] = "forward"  # of the module, that ``run`` takes the place of
    knows_size: ClassVar[bool] = False  # by the arguments of its call, so that ``size`` is idle
    has_steps: ClassVar[bool] = False  # whether it is part of a diffusion model

    def __init__(self, name: str, module: nn.Module, model: nn.Module, size: Size = None) -> None:
        self.name = name
        self.module: Any = module
        self.given_size = size
        self.map: Pair | None = None
        self.tokens: Tensor | None = None
        self.row = Row(name)
        self.swap: Chooser | None = None
        self._hooks: list[RemovableHandle] = []
        self.original: Any = None  # what is called without the swap
        self._was_own = False  # whether it was an attribute of the module, and not of its class

    @classmethod
    def refusal(cls, name: str, module: nn.Module, model: nn.Module, size: Size) -> str | None:
        """Why this attention cannot be swapped, as far as can be seen before it is called."""
        return None

    @classmethod
    def concerns(cls, name: str, module: nn.Module) -> bool:
        """Whether a module of the class is looked at at all; cross-attention by design is not."""
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Without ``original`` of the class, which a copy finds in its own module."""
        return {**vars(self), **({} if self._was_own else {"original": None})}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.swap is not None and not self._was_own:
            self.original = MethodType(getattr(type(self.module), self.attribute), self.module)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """What is called in the place of the attribute."""
        raise NotImplementedError

    def watch(self, model: nn.Module) -> None:
        """Place the hooks that tell the size of the map, where the user's ``size`` does not."""

    def install(self, model: nn.Module, swap: Chooser) -> None:
        """Replace the attribute and place the hooks."""
        self.swap = swap
        self._was_own = self.attribute in vars(self.module)
        self.original = getattr(self.module, self.attribute)
        if self.knows_size:
            self.watch(model)
        elif isinstance(self.given_size, str):
            names = dict(model.named_modules())
            if self.given_size not in names:
                raise ValueError(f"size={self.given_size!r} is the name of no module of the model")
            self.hook(names[self.given_size], self._see_map)
        elif self.given_size is None:
            self.watch(model)
        vars(self.module)[self.attribute] = self.run

    def remove(self) -> None:
        """Put back what was there."""
        if self.swap is None:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if self._was_own:
            vars(self.module)[self.attribute] = self.original
        else:
            vars(self.module).pop(self.attribute, None)
        self.swap = self.original = self.tokens = None

    def hook(self, module: nn.Module, see: Callable[..., None]) -> None:
        """Call ``see(module, args, kwargs, out)`` after a module's call."""
        self._hooks.append(module.register_forward_hook(see, with_kwargs=True))

    def hook_before(self, module: nn.Module, see: Callable[..., None]) -> None:
        """Call ``see(module, args, kwargs)`` before a module's call."""
        self._hooks.append(module.register_forward_pre_hook(see, with_kwargs=True))

    def _see_map(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        if not isinstance(out, Tensor) or out.dim() != 4:
            raise self.error(
                f"size={self.given_size!r} is a module that gives no maps (B, C, H, W)"
            )
        self.map = (out.shape[2], out.shape[3])

    def error(self, what: str) -> ValueError:
        """What is wrong with this attention, and how to go on."""
        place = f"{self.name or 'the model'} ({type(self.module).__name__})"
        return ValueError(f"{place}: {what}; leave it out with where=, or remove the swap")

    def size_of(self, tokens: int) -> tuple[Pair, int]:
        """The map (H, W) of so many tokens, and how many of them are in front of it.

        Raises:
            ValueError: if it is not known, or not of so many tokens.
        """
        size = self.map
        if not self.knows_size and not isinstance(given := self.given_size, str | None):
            size = given(tokens) if callable(given) else given
        if size is None:
            raise self.error("the size of its map is not known, pass size=")
        extra = tokens - size[0] * size[1]
        if not 0 <= extra <= _MOST_EXTRA:
            raise self.error(f"it has {tokens} tokens, which are no map of {size[0]}x{size[1]}")
        return (size[0], size[1]), extra

    def choose(self, tokens: int, keys: int) -> "Chosen | None":
        """The form to compute for so many queries and keys, or None for softmax as before.

        Raises:
            ValueError: in training, or if the size of the map is not known.
        """
        assert self.swap is not None
        if self.module.training:
            self.check_training(self.swap.training)
        size, extra = self.size_of(tokens)
        queries = tokens - extra
        reduced = size if keys == tokens else key_map(size, keys - extra)
        if reduced is None:
            raise self.error(f"its {keys} keys are no map of {size[0]}x{size[1]} reduced evenly")
        form, why = self.swap.form_for(self.name, queries)
        find, pays = getattr(form, "landmarks", None), getattr(form, "pays", None)
        grid = find(size, reduced) if find else None
        if form is not None and grid and pays and not self.swap.force:
            count = grid[0] * grid[1]
            if not pays(queries, keys - extra, count):
                why = f"{count} landmarks for {queries} queries and {keys - extra} keys do not pay"
                form = None
        self.row = Row(self.name, tokens, keys, size, grid, form is not None, why)
        return None if form is None else Chosen(form, size, extra)

    def check_training(self, allowed: bool) -> None:
        """Refuse training where it is not asked for, or drops attention weights out."""
        if not allowed:
            raise self.error("a swap is for evaluation mode alone, call model.eval()")
        if self.dropout():
            raise self.error("it drops attention weights out in training, which a form does not")

    def dropout(self) -> float:
        """The rate of dropout on attention weights."""
        return 0.0

    def compute(self, chosen: "Chosen", q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """A form of queries (B, h, T, d), keys and values (B, h, m, d): (B, h, T, d)."""
        more = {"tokens": self.tokens} if takes_tokens(chosen.form) else {}
        out: Tensor = chosen.form(q, k, v, chosen.size, chosen.extra, **more)
        return out


class Chosen(NamedTuple):
    """A form, and the map that it is computed on."""

    form: Any
    size: Pair
    extra: int


def ancestors(model: nn.Module, name: str) -> list[nn.Module]:
    """The modules that a module is in, the nearest first and the model last."""
    parts = name.split(".")[:-1] if name else []
    return [model.get_submodule(".".join(parts[:i])) for i in range(len(parts), -1, -1)]


def nearest(model: nn.Module, name: str, child: str) -> nn.Module | None:
    """The child of that name, such as ``patch_embed``, of the nearest ancestor that has one."""
    for module in ancestors(model, name):
        try:
            return module.get_submodule(child)
        except AttributeError:
            continue
    return None
