"""Splitting a set into training and validation, by image or by group of images."""

import random
import re
from collections.abc import Iterable

from mmengine_agent.errors import UserError


def choose_val(names: Iterable[str], share: float, seed: int, group_by: str | None) -> set[str]:
    """The names of the images to validate on; those of a group stay together.

    Neither the order of the names nor the machine matters.

    Args:
        names: of the image files.
        share: of the images that is wanted, between 0 and 1; as groups allow.
        seed: another one chooses others.
        group_by: a regular expression; its first group, or else what it matches, names the group.

    Raises:
        UserError: if the share or the pattern is none, an image has no group, or a part would be
            empty.
    """
    if not 0 < share < 1:
        raise UserError(f"--val must lie between 0 and 1, got {share}")
    groups: dict[str, list[str]] = {}
    for name in sorted({*names}):
        groups.setdefault(_group(name, group_by), []).append(name)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    wanted = share * sum(map(len, groups.values()))
    chosen: set[str] = set()
    for group in order[:-1]:  # one is left to train on
        more = len(groups[group])
        if not chosen or abs(len(chosen) + more - wanted) < abs(len(chosen) - wanted):
            chosen.update(groups[group])
    if not chosen:
        raise UserError(f"{len(order)} groups of images cannot be split: at least two are needed")
    return chosen


def _group(name: str, pattern: str | None) -> str:
    if pattern is None:
        return name
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise UserError(f"--group-by: {pattern} is no regular expression: {error}") from error
    if found is None:
        raise UserError(f"--group-by: {pattern} matches nothing in {name}")
    return found.group(1 if found.re.groups else 0) or ""
