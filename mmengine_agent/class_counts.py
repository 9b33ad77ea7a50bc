"""Where the heads of a model keep the number of the data set's classes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from mmengine_agent.config_walk import walk
from mmengine_agent.errors import UserError

_KEYS = ("num_classes", "num_things_classes")
_STUFF = "num_stuff_classes"
# parts with a number of their own: object or not, ImageNet's classes, those of stuff
_OTHER = {"rpn_head", "backbone", "teacher", "text_encoder", "semantic_head"}
_BOUNDARY = (1, 2)  # classes of an auxiliary head that only tells edges


class ClassCount(NamedTuple):
    """A number of classes in a model's config."""

    path: str
    node: Any  # the dict that holds it
    key: str

    @property
    def number(self) -> int:
        return int(self.node[self.key])


def class_counts(model: Any) -> Iterator[ClassCount]:
    """Every number of the data set's classes in a model's config."""
    for each in _counts(model, _OTHER):
        if not ("auxiliary_head" in each.path and each.number in _BOUNDARY):
            yield each


def class_total(model: Any) -> int:
    """How many classes a model tells apart, things and stuff together; 0 if it is not said."""
    counts = _panoptic_counts(model) or list(class_counts(model))
    return max((each.number + (each.node.get(_STUFF) or 0) for each in counts), default=0)


def set_class_count(model: Any, count: int, things: int | None = None) -> None:
    """Give every head of a model's config a number of classes, in place.

    Weights of classes in a loss follow, if they are equal but for the last, which is of background.

    Args:
        model: the config.
        count: all classes.
        things: how many of them are things, where the model tells things from stuff.

    Raises:
        UserError: if things are to be told and are not given, or classes have weights of their own.
    """
    panoptic = _panoptic_counts(model)
    if panoptic and things is None:
        raise UserError(
            f"{panoptic[0].path}: this model tells things from stuff, and how many of the {count} "
            "classes are which is not known here: set num_things_classes and num_stuff_classes"
        )
    for path, node, key in panoptic or list(class_counts(model)):
        # in a panoptic model a head that knows no stuff is of things
        _fit_weights(node, int(node[key]) + (node.get(_STUFF) or 0), count, path)
        node[key] = things if panoptic else count
        if panoptic and _STUFF in node:
            node[_STUFF] = count - (things or 0)


def _panoptic_counts(model: Any) -> list[ClassCount]:
    """All counts of a model that tells things from stuff, also those of its parts for stuff."""
    found = list(_counts(model, {"rpn_head", "backbone"}))
    return found if any(each.node.get(_STUFF) for each in found) else []


def _counts(model: Any, others: set[str]) -> Iterator[ClassCount]:
    """Every number of classes that is in none of some parts."""
    for path, node in walk(model, "model"):
        for key in _KEYS:
            if isinstance(node.get(key), int) and not others.intersection(path.split(".")):
                yield ClassCount(f"{path}.{key}", node, key)


def _fit_weights(head: Any, before: int, count: int, path: str) -> None:
    for place, node in walk(head, path.rpartition(".")[0]):
        weights = node.get("class_weight")
        if not isinstance(weights, list | tuple) or len(weights) not in (before, before + 1):
            continue
        background = list(weights[before:])
        if len({*weights[:before]}) > 1:
            raise UserError(
                f"{place}.class_weight has a weight for each of {before} classes, and there are "
                f"{count}: give it the weights of your classes"
            )
        node["class_weight"] = [weights[0]] * count + background
