"""Agent grids: fixed, or by a rule from the size of the map. Letters: see ``agent``.

A grid needs no weights of its own: queries are pooled to any, and the tables are interpolated to
it, so that a trained model takes another rule as it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_attention.arguments import Pair, check_agent_shapes
from agent_attention.compute.symbolic import fix, is_symbolic

_SLACK = 0.05  # of a power of two: a map 3 % above it counts as being there
_SKEW = 1.5  # how far an aspect may be from that of the map
_SHARE = 0.5  # of the cost of the linear layers: what agents may cost by the bounded rule


@dataclass(frozen=True)
class GridRule:
    """The agent grid of a map: cells keep the size that they have at pre-training.

    The side p of the base grid is multiplied by sqrt(H*W) over the map's side at pre-training,
    rounded up to a power of two, at most ``cap``. A rule is for choosing a grid before a training:
    trained models were not better with the larger grids that it gives at larger sizes than with
    the grids of their training (docs/high_resolution.md).

    Args:
        cap: the largest factor; without one, cost grows with N*N.
        aspect: about as many agents, in cells as square as the map allows: rows / columns is within
            a factor of 1.5 of H / W, unless ``most`` forbids it; else a square grid.
        within: at most (H, W): no more agents than tokens along a side.
        most: agents of a grid, at most.
        agents: take about so many, in place of the factor.
    """

    cap: float = math.inf
    aspect: bool = False
    within: bool = False
    most: int | None = None
    agents: int | None = None

    def grid(self, size: Pair, base_grid: int, side: int) -> Pair:
        """Rows and columns of the agents.

        Args:
            size: (H, W). Where it is symbolic, the graph is one for all sizes with this grid.
            base_grid: p.
            side: of the map at pre-training.
        """
        height, width = size if is_symbolic(size) else (int(size[0]), int(size[1]))
        factor = 2.0 ** math.ceil(math.log2(math.sqrt(height * width) / side) - _SLACK)
        p = base_grid * max(1.0, min(self.cap, factor))
        p = math.sqrt(self.agents) if self.agents else p
        rows, columns = self._shape(p, height, width)
        most = self.most or rows * columns
        while rows * columns > most and p > 1:
            p -= 0.5
            rows, columns = self._shape(p, height, width)
        # a map may be longer than agents are many
        return fix(min(rows, most)), fix(min(columns, most))

    def _shape(self, p: float, height: int, width: int) -> Pair:
        """About p*p agents."""
        root = math.sqrt(height / width) if self.aspect else 1.0
        p = max(p, root, 1 / root)  # a whole cell along the shorter side
        rows, columns = round(p * root), round(p / root)
        if self.aspect:  # where few rows are rounded down, or few columns
            rows = min(rows, max(1, int(_SKEW * columns * height / width)))
            columns = min(columns, max(1, int(_SKEW * rows * width / height)))
        return (min(rows, height), min(columns, width)) if self.within else (rows, columns)


Grid = Pair | GridRule


def agent_grids(
    shapes: Any,
    published: Sequence[Pair],
    caps: Sequence[float],
    linear: Sequence[float],
) -> tuple[Grid, ...]:
    """The agent grid of each stage, from what users write.

    Args:
        shapes: 'published', or None; 'rule', which is the same at all published settings;
            'bounded', the rule with ``aspect`` and ``within``, and agents that cost at most half
            of what the linear layers do; a number of agents; a dict with the type 'rule' and
            ``cap``, ``aspect``, ``within``, and ``budget`` in place of that half; or a pair
            (rows, columns) a stage.
        published: what 'published' stands for.
        caps: of the rule, a stage.
        linear: agents that cost as much as a block's linear layers, a stage.

    Raises:
        ValueError: if they are none of these.
    """
    if shapes is None or shapes == "published":
        return tuple(published)
    if isinstance(shapes, int) and not isinstance(shapes, bool) and shapes > 0:
        return (GridRule(aspect=True, within=True, agents=shapes),) * len(published)
    if isinstance(shapes, str):
        shapes = _NAMED.get(shapes, shapes)
    if not isinstance(shapes, Mapping):
        return check_agent_shapes(shapes, len(published))
    options = {key: value for key, value in shapes.items() if key != "type"}
    if shapes.get("type") != "rule" or set(options) - {"cap", "aspect", "within", "budget"}:
        raise ValueError(
            "a rule for agent_shapes is a dict with the type 'rule' and any of cap, aspect, "
            f"within and budget; got {dict(shapes)!r}"
        )
    budget = options.pop("budget", None)
    for name in ("cap", "budget"):
        given = budget if name == "budget" else options.get("cap")
        if given is not None and not (isinstance(given, (int, float)) and given > 0):
            raise ValueError(f"{name} of a rule for agent_shapes must be positive, got {given!r}")
    mosts = [None if budget is None else max(1, int(budget * each)) for each in linear]
    return tuple(
        GridRule(**{"cap": cap, **options}, most=most)
        for cap, most in zip(caps, mosts, strict=True)
    )


# by the names that users write beside 'published'
_NAMED: dict[str, Mapping[str, Any]] = {
    "rule": {"type": "rule"},
    "bounded": {"type": "rule", "aspect": True, "within": True, "budget": _SHARE},
}
