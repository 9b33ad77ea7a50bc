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
    if not unknown:
        return
    lineage = cls.__mro__[: cls.__mro__.index(family) + 1]
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    allowed = {  # a dict, for its order; subclasses add their own to the family's
        name: None
        for parent in reversed(lineage)
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
            positive integers, as many as the known architectures have.
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
            continue
        count = len(model[key])
        whole = isinstance(value, Sequence) and len(value) == count
        if not whole or not all(map(_positive, value)):
            raise ValueError(
                f"arch[{key!r}] must be {counted(count, 'positive integer')}, got {value!r}"
            )
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
) -> list[list[str]]:
    """The mixer of each block of each stage, by name.

    Args:
        mixers: a name a stage, or a run such as '2 agent, 16 windows' for its blocks; None for
            those of ``attn_types``.
        attn_types: the same in letters: 'A', or '2A16B'.
        letters: the name that each letter stands for.
        depths: blocks of each stage.
        known: names of mixers.

    Raises:
        ValueError: if an item is neither a name nor a run whose counts add up to the depth.
    """
    if mixers is None:
        names = _spell(attn_types, depths, letters, r"([1-9][0-9]?)([A-Z])")
        if names is None:
            raise ValueError(
                f"attn_types must be {counted(len(depths), 'letter')} or runs, one a stage: "
                f"{', '.join(f'{k!r} ({v})' for k, v in letters.items())} or a run of them that "
                f"adds up to the depths {tuple(depths)}, such as '2A16B'; got {attn_types!r}"
            )
        return names
    names = _spell(mixers, depths, {name: name for name in known}, r"([1-9][0-9]?) (\w+)(?:, |$)")
    if names is None:
        raise ValueError(
            f"mixers must be {counted(len(depths), 'name')} or runs, one a stage: "
            f"{', '.join(map(repr, known))} or a run of them that adds up to the depths "
            f"{tuple(depths)}, such as '2 agent, 16 windows'; got {mixers!r}"
        )
    return names


def _spell(
    items: Any, depths: Sequence[int], names: Mapping[str, str], run: str
) -> list[list[str]] | None:
    """('A', '2A1B') for depths (2, 3) -> [['agent', 'agent'], ['agent', 'agent', ...]]."""
    if not isinstance(items, Sequence) or len(items) != len(depths):
        return None
    spelled = []
    for item, depth in zip(items, depths, strict=True):
        if not isinstance(item, str):
            return None
        found = [(depth, item)]
        if item not in names and re.fullmatch(f"(?:{run})+", item):
            found = [(int(count), name) for count, name in re.findall(run, item)]
        if sum(count for count, _ in found) != depth or any(n not in names for _, n in found):
            return None
        spelled.append([names[name] for count, name in found for _ in range(count)])
    return spelled


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
