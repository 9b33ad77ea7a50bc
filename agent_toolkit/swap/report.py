"""What ``tools/swap.py`` knows so far, and its report."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine_agent.files import write_file


class State(dict[str, Any]):
    """Figures by name, in a JSON file that is written whenever there are more.

    Those in a file of the same fingerprint are there from the beginning.
    """

    def __init__(self, path: Path, fingerprint: str, facts: Mapping[str, Any]) -> None:
        super().__init__(facts, fingerprint=fingerprint)
        self._path = path
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        if isinstance(found, dict) and found.get("fingerprint") == fingerprint:
            self.update(found)
            print(f"goes on from {path}")

    def save(self) -> None:
        write_file(self._path, json.dumps(self, indent=1) + "\n")


def to_markdown(state: Mapping[str, Any]) -> str:
    """The report as a page."""
    fused = state["rows"]["fused softmax"]["seconds"]
    softmax = state["rows"]["as it is"]["score"]
    rows = [
        [
            name,
            f"{row['score']:.4g}",
            f"{row['score'] / softmax:.1%}" if softmax else "-",
            f"{1e3 * row['seconds']:.0f}",
            f"{row.get('fused', fused) / row['seconds']:.2f}",
            f"{row['memory'] / 2**20:.0f}",
        ]
        for name, row in state["rows"].items()
    ]
    titles = ["all layers", state["metric"], "of softmax", "ms", "times fused softmax", "peak MiB"]
    parts = [
        f"# {state['config']} with its softmax attention swapped",
        f"{state['checkpoint']}, {state['images']} images. *ms* are of a batch, beside the same "
        "weights with torch's fused softmax; *peak* is that of the allocator, without weights.",
        _table(titles, rows),
        "## By layer",
        "Relative error of a layer's attention on the softmax model's own inputs, mean cosine, and "
        "time as a share of fused softmax.",
        _layers(state),
    ]
    if "steps" in state:
        parts += ["## Chosen", _chosen(state)]
    return "\n\n".join(parts) + "\n"


def _layers(state: Mapping[str, Any]) -> str:
    names = list(next(iter(state["layers"].values()))["forms"])
    cell = "{error:.3f} {cosine:.3f} {cost:.2f}"
    rows = [
        [
            layer,
            "{} x {}".format(*each["tokens"]),
            *(cell.format(**each["forms"][name]) for name in names),
        ]
        for layer, each in state["layers"].items()
    ]
    left_out = "".join(
        f"\n\nNot swapped: {name}, {why}." for name, why in state["left_out"].items()
    )
    return _table(["layer", "queries x keys", *names], rows) + left_out


def _chosen(state: Mapping[str, Any]) -> str:
    rows = [[layer, name or "softmax"] for layer, name in state["chosen"].items()]
    tried = [
        [layer, name, f"{error:.3f}", f"{score:.4g}", "yes" if kept else "no"]
        for layer, name, error, score, kept in state["steps"]
    ]
    titles = ["layer", "form", "local error", state["metric"], "kept"]
    return f"{_table(['layer', 'attention'], rows)}\n\n### Tried\n\n{_table(titles, tried)}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
