"""The tables of docs/swap.md, from the reports of ``swap_vit.py`` and ``swap_speed.py``.

python benchmarks/swap_tables.py benchmarks/results/swap_*.json
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine_agent.run.exit import run_tool

NAMES = {
    "agent, both scales 1/sqrt(d)": "agent, both scales d^(-1/2)",
    "agent": "agent, second scale d^(-0.15)",
    "agent + 0.075 V": "the same + 0.075 V (AgentSD, our default)",
    "nystrom": "Nyström",
    "pooled keys": "pooled keys",
}
Report = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reports", nargs="+", type=Path, metavar="FILE")
    for path in parser.parse_args().reports:
        report = json.loads(path.read_text())
        known: dict[str, Callable[[Report], str]] = {
            "rows": score_table,
            "choice": search_table,
            "records": speed_table,
        }
        makers = [make for key, make in known.items() if key in report]
        print(f"{path}: {report['command']}, {report['threads']} threads of {report['cpu']}\n")
        print("\n\n".join(make(report) for make in makers) + "\n")


def score_table(report: Report) -> str:
    """mIoU of all blocks swapped: a line a form, a column a number of landmarks."""
    rows = report["rows"]
    counts = sorted({int(name.rpartition(", ")[2]) for name in rows if name != "softmax"})
    titles = [f"{report['tokens']} tokens, landmarks:", *map(str, counts)]
    lines = [["softmax", *[f"{rows['softmax']['mIoU']:.3f}"] * len(counts), "0", "0"]]
    for name, label in NAMES.items():
        each = [rows[f"{name}, {count}"] for count in counts]
        errors = [
            ", ".join(f"{row[key]:.2f}" for row in each)
            for key in ("error of tokens", "local error, mean")
        ]
        lines.append([label, *(f"{row['mIoU']:.3f}" for row in each), *errors])
    return markdown([*titles, "error of the tokens", "mean error of a layer"], lines)


def search_table(report: Report) -> str:
    """The layers that were chosen, and what they score."""
    lines = [
        [layer.split(".")[1], (form or "softmax").replace(", ", ", n = ")]
        for layer, form in report["choice"].items()
    ]
    scores = [
        f"mIoU {report['softmax']:.3f} to {report['chosen']:.3f}",
        f"on other scenes {report['other scenes']['softmax']:.3f} to "
        f"{report['other scenes']['chosen']:.3f}",
        f"{len(report['steps'])} moves tried",
    ]
    if "seconds" in report:
        softmax, chosen = report["seconds"]["fused softmax"], report["seconds"]["chosen"]
        scores.append(f"the model takes {1e3 * softmax:.0f} and {1e3 * chosen:.0f} ms")
    return f"{markdown(['block', 'attention'], lines)}\n\n{'; '.join(scores)}"


def speed_table(report: Report) -> str:
    """Milliseconds and ratios to fused softmax in the same run."""
    titles = ("pixels", "tokens", "attention", "model, ms", "", "attention alone, ms", "")
    lines = [
        [
            f"{record['side'] * 14}",
            f"{record['side'] ** 2:,}",
            record["form"],
            f"{1e3 * record['model']:.0f}",
            f"{record['model ratio']:.1f} x",
            f"{1e3 * record['attention']:.0f}",
            f"{record['attention ratio']:.1f} x",
        ]
        for record in report["records"]
    ]
    return markdown(titles, lines)


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    run_tool(main)
