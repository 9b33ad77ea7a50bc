"""Checks of what users pass to the backbones: each error names the argument and what is allowed."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

Pair = tuple[int, int]


def resolve_arch(arch: Any, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The sizes of an architecture, by name or as a dict with the same keys; in their own order.

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
        if not _are_positive([value] if one else value, 1 if one else len(model[key])):
            wanted = "a positive integer" if one else f"{len(model[key])} positive integers"
            raise ValueError(f"arch[{key!r}] must be {wanted}, got {value!r}")
    return {key: arch[key] for key in model}  # a config that was written sorts its keys


def check_agent_shapes(shapes: Any, stages: int) -> tuple[Pair, ...]:
    """Agent grids, one (a_h, a_w) a stage.

    Raises:
        ValueError: if they are not a pair of positive integers for each stage.
    """
    listed = list(shapes) if isinstance(shapes, Sequence) else []
    if len(listed) != stages or not all(_are_positive(pair, 2) for pair in listed):
        raise ValueError(
            "agent_shapes must be 'published', 'rule', 'bounded', a number of agents, a rule, or "
            "a pair of positive integers (rows, columns) a stage, such as "
            f"{((12, 12),) * stages}; got {shapes!r}"
        )
    return tuple((rows, columns) for rows, columns in listed)


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
    argument, given = (
        ("attn_types", attn_types) if mixers is None and letters else ("mixers", mixers)
    )
    names = {**letters, **{name: name for name in known}}
    items = given if isinstance(given, Sequence) and len(given) == len(depths) else [None]
    spelled = [_blocks(*each, names) for each in zip(items, depths, strict=False)]
    if not all(spelled):
        raise ValueError(
            f"{argument} must be, for each of {len(depths)} stages, one of {', '.join(names)} or a "
            f"run of them that adds up to the depths {tuple(depths)}, such as '2A16B' or "
            f"'2 agent, 16 windows'; got {given!r}"
        )
    return spelled


def _blocks(item: Any, depth: int, names: Mapping[str, str]) -> list[Any]:
    """('2A1B', 3) -> ['agent', 'agent', 'windows']; nothing if they do not spell a stage."""
    if isinstance(item, Mapping) and item.get("type") in names:
        return [item] * depth
    if not isinstance(item, str):
        return []
    run = r"([1-9][0-9]?) ?([A-Za-z_]+)(?:, |(?=[0-9])|$)"
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
    if min(shape[-2:]) < stride:
        raise ValueError(
            f"an image of {shape[-2]}x{shape[-1]} pixels is smaller than the backbone's stride: "
            f"pass at least {stride}x{stride}"
        )


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_positive(values: Any, count: int) -> bool:
    """Whether they are so many positive integers."""
    counted = isinstance(values, Sequence) and len(values) == count
    return counted and all(_integer(each) and each > 0 for each in values)
