"""Steps as operators, which ``torch.compile`` does not look into.

With open sizes inductor writes a window's place in the map as quotients of quotients of symbols, in
each operation that reads it, and proves statements about them for minutes. As one operator a step
is what it is without a compiler. The gradient of a linear one is its transposed, an operator too.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

_is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # new in torch 2.7
Numbers = Sequence[int]
Map = Callable[[Tensor, Numbers], Tensor]
Shape = Callable[[Tensor, Numbers], Sequence[int]]
Function = TypeVar("Function", bound=Callable[..., Tensor])


def is_compiling() -> bool:
    """Whether ``torch.compile`` records a graph, and not ``torch.export``.

    An exported graph has ordinary operations alone: other runtimes know no others.
    """
    return is_dynamo_compiling() and not _is_exporting()


def as_operator(function: Function) -> Function:
    """A function of sizes, types and devices; in a compiled graph one operator.

    Its annotations are those that ``torch.library.custom_op`` takes.
    """
    name = f"agent_attention::{function.__name__.strip('_')}"
    operator = torch.library.custom_op(name, function, mutates_args=())
    operator.register_fake(function)

    @functools.wraps(function)
    def called(*args: object) -> Tensor:
        return operator(*args) if is_compiling() else function(*args)

    return called  # type: ignore[return-value]


def linear_operators(
    name: str, there: Map, shape: Shape, back: Map, shape_back: Shape
) -> tuple[Map, Map]:
    """A linear map of a tensor and its transposed as operators, each the gradient of the other.

    Args:
        name: of the first in the graph; the second is called the same with ``_transposed``.
        there: the map, of a tensor and numbers, sizes most of all.
        shape: of its result.
        back: the transposed map, of the same numbers.
        shape_back: of its result.
    """
    first = _operator(name, there, shape)
    second = _operator(f"{name}_transposed", back, shape_back)
    _connect(first, second)
    _connect(second, first)
    return first, second


def _operator(name: str, function: Map, shape: Shape) -> Any:
    def run(x: Tensor, numbers: Sequence[int]) -> Tensor:
        out = function(x, numbers).contiguous()
        shared = out.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        return out.clone() if shared else out  # an operator gives new memory

    def empty(x: Tensor, numbers: Sequence[int]) -> Tensor:
        return x.new_empty(shape(x, numbers))

    operator = torch.library.custom_op(f"agent_attention::{name}", run, mutates_args=())
    operator.register_fake(empty)
    return operator


def _connect(operator: Any, transposed: Any) -> None:
    """Make one the gradient of the other."""

    def keep(ctx: Any, inputs: tuple[Tensor, Numbers], output: Tensor) -> None:
        ctx.numbers = inputs[1]

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return transposed(grad, ctx.numbers), None

    operator.register_autograd(backward, setup_context=keep)
