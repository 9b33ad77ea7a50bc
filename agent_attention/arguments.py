"""Checks of what users pass to the backbones: each error names the argument and what is allowed."""

import re
from collections.abc import Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, TypeVar

Pair = tuple[int, int]
Sizes = TypeVar("Sizes", bound=Mapping[str, Any])


def reject_unknown(cls: type, unknown: Mapping[str, Any]) -> None:
    """Raise TypeError if there are unknown keyword arguments, listing those ``cls`` takes."""
    if not unknown:
        return
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    allowed = {  # a dict, for its order; subclasses add their own to their parents'
        name: None
        for parent in reversed(cls.__mro__)
        for name, parameter in signature(parent).parameters.items()
        if parameter.kind in named
    }
    raise TypeError(
        f"{cls.__name__} does not take {', '.join(map(repr, unknown))}; "
        f"it takes {', '.join(allowed)}"
    )


def resolve_arch(arch: str | Mapping[str, Any], known: Mapping[str, Sizes]) -> dict[str, Any]:
    """The sizes of an architecture, by name or as a dict with the same keys.

    Raises:
        ValueError: on an unknown name, or a dict with other keys or with values that are not
            positive integers, four where the known architectures have four.
    """
    if isinstance(arch, str):
        if arch not in known:
            raise ValueError(f"unknown arch {arch!r}: choose one of {', '.join(map(repr, known))}")
        return dict(known[arch])
    model = next(iter(known.values()))
    if not isinstance(arch, Mapping):
        names = ", ".join(map(repr, known))
        raise ValueError(f"arch must be one of {names} or a dict of sizes, got {arch!r}")
    if set(arch) != set(model):
        raise ValueError(f"arch takes exactly the keys {sorted(model)}, got {sorted(arch)}")
    for key, value in arch.items():
        if isinstance(model[key], int):
            if not _positive(value):
                raise ValueError(f"arch[{key!r}] must be a positive integer, got {value!r}")
        elif not isinstance(value, Sequence) or len(value) != 4 or not all(map(_positive, value)):
            raise ValueError(f"arch[{key!r}] must be four positive integers, got {value!r}")
    return dict(arch)


def check_agent_shapes(shapes: Any) -> tuple[Pair, ...]:
    """Agent grids, one (a_h, a_w) a stage.

    Raises:
        ValueError: if they are not four pairs of positive integers.
    """
    try:
        pairs = tuple((rows, columns) for rows, columns in shapes)
    except (TypeError, ValueError):
        pairs = ()
    if len(pairs) != 4 or not all(_positive(side) for pair in pairs for side in pair):
        raise ValueError(
            "agent_shapes must be four pairs of positive integers, one (rows, columns) a stage, "
            f"such as ((12, 12), (16, 16), (28, 28), (28, 28)); got {shapes!r}"
        )
    return pairs


def check_attn_types(attn_types: Any) -> str:
    """Four letters, 'A' (agent attention) or 'B' (softmax attention), one a stage.

    Raises:
        ValueError: if they are anything else.
    """
    if not isinstance(attn_types, str) or len(attn_types) != 4 or set(attn_types) - set("AB"):
        raise ValueError(
            "attn_types must be four letters, one a stage, each 'A' (agent attention) or "
            f"'B' (softmax attention), such as 'AAAA'; got {attn_types!r}"
        )
    return attn_types


def check_block_types(attn_types: Any, depths: Sequence[int]) -> list[str]:
    """The letters of every block, a string a stage: ('A', '2A16B') -> ['AA', 'AABBBB...'].

    Raises:
        ValueError: if an item is neither 'A', 'B' nor a run whose counts add up to the depth.
    """
    items = list(attn_types) if isinstance(attn_types, Sequence) else []
    if len(items) == len(depths):
        spelled = [
            item * depth if item in ("A", "B") else _spell_run(item)
            for item, depth in zip(items, depths, strict=True)
        ]
        if [len(letters) for letters in spelled] == list(depths):
            return spelled
    raise ValueError(
        "attn_types must be an item a stage: 'A' (agent attention), 'B' (shifted windows) or a run "
        f"of both that adds up to the depths {tuple(depths)}, such as '2A16B'; got {attn_types!r}"
    )


def _spell_run(item: Any) -> str:
    """'2A3B' -> 'AABBB'; '' if it is no run."""
    if not isinstance(item, str) or not re.fullmatch(r"([1-9][0-9]?[AB])+", item):
        return ""
    return "".join(letter * int(count) for count, letter in re.findall(r"([0-9]+)([AB])", item))


def check_out_indices(out_indices: Any) -> tuple[int, ...]:
    """Increasing stage numbers from 0 to 3.

    Raises:
        ValueError: if they are anything else.
    """
    indices = tuple(out_indices) if isinstance(out_indices, Sequence) else ()
    stages = [i for i in range(4) if i in indices]
    if not indices or not all(map(_integer, indices)) or list(indices) != stages:
        raise ValueError(
            f"out_indices must be increasing stage numbers from 0 to 3, got {out_indices!r}"
        )
    return indices


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError unless the channels divide among the heads."""
    if dim % num_heads:
        raise ValueError(f"dim={dim} is not a multiple of num_heads={num_heads}")


def check_rate(name: str, value: float) -> None:
    """Raise ValueError unless ``0 <= value < 1``."""
    if not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, got {value!r}")


def check_integer(name: str, value: Any, low: int, high: int) -> None:
    """Raise ValueError unless the value is an integer from ``low`` to ``high``."""
    if not _integer(value) or not low <= value <= high:
        raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")


def check_image(shape: Sequence[int], stride: int) -> None:
    """Raise ValueError unless images are (B, 3, H, W) with sides of at least ``stride``."""
    if len(shape) != 4 or shape[1] != 3:
        raise ValueError(f"expected an image batch of shape (B, 3, H, W), got {tuple(shape)}")
    height, width = shape[-2:]
    if height < stride or width < stride:
        raise ValueError(
            f"an image of {height}x{width} pixels is smaller than the backbone's stride: "
            f"pass at least {stride}x{stride}"
        )


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _integer(value) and value > 0
