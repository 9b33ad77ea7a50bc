"""Which layers of a trained model to swap, and by what, under a given loss of score."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

Choice = dict[str, str | None]  # layer: the name of its form; None is softmax


class Move(NamedTuple):
    """One layer given a form, or given another."""

    layer: str
    form: str
    error: float  # local
    cost: float  # of the layer's attention with it, as a share of softmax


class Step(NamedTuple):
    """A move that was tried."""

    move: Move
    score: float
    kept: bool
    place: str  # its number and that of all moves
    choice: Choice  # after it

    def __str__(self) -> str:
        kept = "kept" if self.kept else "not kept"
        return f"[{self.place}] {self.move.layer} {self.move.form}: {self.score:.4g}, {kept}"


def search(
    moves: Sequence[Move], score: Callable[[Mapping[str, str | None]], float], least: float
) -> Iterator[Step]:
    """Try moves from the smallest local error on, and keep those with which the score holds.

    A layer may be given a cheaper form later, which has a larger error as a rule; a move that
    makes a layer dearer than it is by now is not tried. The score is that of the whole model with
    all that was kept before.

    Args:
        moves: for each layer that may be swapped, each form it may have.
        score: of the model with a choice.
        least: what the score must not fall below.

    Yields:
        Each move that was tried.
    """
    choice: Choice = {move.layer: None for move in moves}
    costs = dict.fromkeys(choice, 1.0)
    ordered = sorted(moves, key=lambda move: (move.error, move.cost))
    for number, move in enumerate(ordered, 1):
        if not move.cost < costs[move.layer]:
            continue
        found = score({**choice, move.layer: move.form})
        kept = found >= least
        if kept:
            choice[move.layer], costs[move.layer] = move.form, move.cost
        yield Step(move, found, kept, f"{number}/{len(ordered)}", dict(choice))
