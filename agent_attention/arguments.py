"""Checks of what users pass to the backbones: each error names the argument and what is allowed."""

import re
from collections.abc import Collection, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, TypeVar

Pair = tuple[int, int]
Sizes = TypeVar("Sizes", bound=Mapping[str, Any])


def reject_unknown(cls: type, family: type, unknown: Mapping[str, Any]) -> None:
    """Raise TypeError if there are unknown keyword arguments, listing those ``cls`` takes.

    Args:
        cls: the class that is built: ``family``, or a subclass that hands arguments on to it.
        family: the class whose constructor was given them.
        unknown: the arguments.
    """
    if unknown:
        lineage = cls.__mro__[: cls.__mro__.index(family) + 1]
        named = [p for each in reversed(lineage) for p in signature(each).parameters.values()]
        variadic = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        allowed = dict.fromkeys(p.name for p in named if p.kind not in variadic)
        refused = ", ".join(map(repr, unknown))
        raise TypeError(f"{cls.__name__} does not take {refused}; it takes {', '.join(allowed)}")


def resolve_arch(arch: str | Mapping[str, Any], known: Mapping[str, Sizes]) -> dict[str, Any]:
    """The sizes of an architecture, by name or as a dict with the same keys.

    Raises:
        ValueError: on an unknown name, or a dict with other keys or with values that are not
            positive integers, as many as the known architectures have.
    """
    if isinstance(arch, str) and arch in known:
        return dict(known[arch])
    model = next(iter(known.values()))
    if not isinstance(arch, Mapping):
        names = ", ".join(map(repr, known))
        raise ValueError(f"arch must be one of {names} or a dict of sizes, got {arch!r}")
    if set(arch) != set(model):
        raise ValueError(f"arch takes exactly the keys {sorted(model)}, got {sorted(arch)}")
    for key, value in arch.items():
        one = isinstance(model[key], int)
        count = 1 if one else len(model[key])
        values = [value] if one else value
        if not isinstance(values, Sequence) or [*map(_positive, values)] != [True] * count:
            wanted = "a positive integer" if one else counted(count, "positive integer")
            raise ValueError(f"arch[{key!r}] must be {wanted}, got {value!r}")
    return dict(arch)


def check_agent_shapes(shapes: Any, stages: int) -> tuple[Pair, ...]:
    """Agent grids, one (a_h, a_w) a stage.

    Raises:
        ValueError: if they are not a pair of positive integers for each stage.
    """
    try:
        pairs = tuple((rows, columns) for rows, columns in shapes)
    except (TypeError, ValueError):
        pairs = ()
    if len(pairs) != stages or not all(_positive(side) for pair in pairs for side in pair):
        raise ValueError(
            f"agent_shapes must be {counted(stages, 'pair')} of positive integers, one "
            f"(rows, columns) a stage, such as {((12, 12),) * stages}; got {shapes!r}"
        )
    return pairs


def mixer_names(
    mixers: Any,
    attn_types: Any,
    letters: Mapping[str, str],
    depths: Sequence[int],
    known: Collection[str],
) -> list[list[Any]]:
    """The mixer of each block of each stage, by name, or as a dict with its options.

    Args:
        mixers: a name a stage, or a run such as '2 agent, 16 windows' for its blocks, or a dict
            such as {'type': 'aft_conv', 'kernel': 11}; None for those of ``attn_types``.
        attn_types: the same in letters: 'A', or '2A16B'.
        letters: the name that each letter stands for; none where there is no ``attn_types``.
        depths: blocks of each stage.
        known: names of mixers.

    Raises:
        ValueError: if an item is neither a name nor a run whose counts add up to the depth.
    """
    if mixers is None and letters:
        argument, given, noun, example = "attn_types", attn_types, "letter", "2A16B"
        names, run = {**letters}, r"([1-9][0-9]?)([A-Z])"
        listed = ", ".join(f"{letter!r} ({name})" for letter, name in letters.items())
    else:
        argument, given, noun, example = "mixers", mixers, "name", "2 agent, 16 windows"
        names, run = {name: name for name in known}, r"([1-9][0-9]?) (\w+)(?:, |$)"
        listed = ", ".join(map(repr, known))
    items = given if isinstance(given, Sequence) and len(given) == len(depths) else [None]
    spelled = [_blocks(*each, names, run) for each in zip(items, depths, strict=False)]
    if not all(spelled):
        raise ValueError(
            f"{argument} must be {counted(len(depths), noun)} or runs, one a stage: {listed} or a "
            f"run of them that adds up to the depths {tuple(depths)}, such as {example!r}; "
            f"got {given!r}"
        )
    return spelled


def _blocks(item: Any, depth: int, names: Mapping[str, str], run: str) -> list[Any]:
    """('2A1B', 3) -> ['agent', 'agent', 'windows']; nothing if they do not spell a stage."""
    if isinstance(item, Mapping) and item.get("type") in names:
        return [item] * depth
    if not isinstance(item, str):
        return []
    found = [(depth, item)]
    if item not in names and re.fullmatch(f"(?:{run})+", item):
        found = [(int(count), name) for count, name in re.findall(run, item)]
    blocks = [names.get(name, "") for count, name in found for _ in range(count)]
    return blocks if len(blocks) == depth and all(blocks) else []


def check_out_indices(out_indices: Any, stages: int) -> tuple[int, ...]:
    """Increasing stage numbers, from 0.

    Raises:
        ValueError: if they are anything else.
    """
    indices = tuple(out_indices) if isinstance(out_indices, Sequence) else ()
    known = [i for i in range(stages) if i in indices]
    if not indices or not all(map(_integer, indices)) or list(indices) != known:
        raise ValueError(
            f"out_indices must be increasing stage numbers from 0 to {stages - 1}, "
            f"got {out_indices!r}"
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


def check_image(shape: Sequence[int], stride: int, channels: int | None) -> None:
    """Raise ValueError unless images are (B, channels, H, W) with sides of at least ``stride``."""
    if len(shape) != 4 or (channels is not None and shape[1] != channels):
        wanted = f"(B, {channels or 'C'}, H, W)"
        raise ValueError(f"expected an image batch of shape {wanted}, got {tuple(shape)}")
    height, width = shape[-2:]
    if height < stride or width < stride:
        raise ValueError(
            f"an image of {height}x{width} pixels is smaller than the backbone's stride: "
            f"pass at least {stride}x{stride}"
        )


def counted(count: int, noun: str) -> str:
    """'four pairs', 'one pair'."""
    words = ("no", "one", "two", "three", "four", "five")
    number = words[count] if count < len(words) else str(count)
    return f"{number} {noun}{'' if count == 1 else 's'}"


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _integer(value) and value > 0
