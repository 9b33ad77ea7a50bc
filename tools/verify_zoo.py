"""Evaluate published weights and hold every row of the model zoo against its reported score.

    python tools/verify_zoo.py --weights published            # data in data/coco and data/ade
    python tools/verify_zoo.py --weights published --data /datasets --only retinanet
    python tools/verify_zoo.py --weights checkpoints --imagenet data/imagenet

With --imagenet the rows are the ImageNet classifiers of docs/weights.md. A row is evaluated if
WEIGHTS/NAME.pth and its data are there; what is absent is named. A row that fails does not stop the
others; of one without a reported score the figures found are printed. Exits with 1 if a score is
off by more than the tolerance, a row failed, or nothing could be evaluated.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.fileio import load

from mmengine_agent.errors import UserError
from mmengine_agent.published import IMAGENET_FILES
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import make_parser

ROOT = Path(__file__).resolve().parent.parent
DATA = {"COCO": "coco", "ADE20K": "ade/ADEChallengeData2016"}  # below --data
# The metafiles' names of scores: the tools' names of metrics, and the factor to per cent.
METRICS = {
    "box AP": ("coco/bbox_mAP", 100),
    "mask AP": ("coco/segm_mAP", 100),
    "mIoU": ("mIoU", 1),
    "mAcc": ("mAcc", 1),
    "top-1": ("top1", 1),
}


class Row(NamedTuple):
    """A published file, and what its authors report of it."""

    name: str
    needs: list[Path]  # weights and data
    reported: dict[str, float]  # in per cent
    tool: list[str | Path]  # that evaluates it, with its arguments, into metrics.json


def main() -> None:
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--weights", required=True, metavar="DIR", help="folder of NAME.pth files")
    add("--data", default="data", metavar="DIR", help=f"holds {' and '.join(DATA.values())}")
    add("--imagenet", metavar="DIR", help="evaluate classifiers on this, see tools/classify.py")
    add("--only", default="", metavar="TEXT", help="rows whose name has TEXT")
    add("--tolerance", type=float, default=0.2, help="in points (default: 0.2)")
    add("--work-dir", default="work_dirs/verify_zoo", metavar="DIR")
    args = parser.parse_args()
    page, rows = ("weights", classifiers) if args.imagenet else ("model_zoo", recipes)
    chosen = [row for row in rows(args) if args.only in row.name]
    if not chosen:
        raise UserError(f"--only: no row of docs/{page}.md has {args.only!r} in its name")
    off: dict[str, list[float]] = {}
    failed = []
    for row in chosen:
        absent = [path for path in row.needs if not path.exists()]
        if absent:
            print(f"{row.name:<52} not evaluated: no {absent[0]}", flush=True)
            continue
        try:
            found = evaluate(row, Path(args.work_dir, row.name))
        except UserError as error:
            failed.append(row.name)
            print(error, flush=True)
            continue
        off[row.name] = compare(row, found)
    if failed:
        raise UserError(f"{len(failed)} rows failed: {', '.join(failed)}")
    if not off:
        raise UserError(f"nothing was evaluated: docs/{page}.md says where the weights are")
    most = max((each for scores in off.values() for each in scores), default=0)
    if most > args.tolerance:
        raise UserError(f"a score is {most:.2f} points off, more than {args.tolerance}")


def compare(row: Row, found: dict[str, float]) -> list[float]:
    """Print the scores of a row beside those reported, if any; how far each of these is off."""
    off = []
    for score in dict.fromkeys([*row.reported, *found]):
        line = f"{score:<8} {found[score]:6.2f}  "
        if score in row.reported:
            change = found[score] - row.reported[score]
            off.append(math.inf if math.isnan(change) else abs(change))  # nan passes no comparison
            line += f"reported {row.reported[score]:6.2f}  {change:+.2f}"
        else:
            line += "none reported"
        print(f"{row.name:<52} {line}", flush=True)
    return off


def recipes(args: argparse.Namespace) -> Iterator[Row]:
    """The detectors and segmentors."""
    for model in zoo():
        name, results = model["Name"], model["Results"]
        data = Path(args.data, DATA[results[0]["Dataset"]])
        weights = Path(args.weights, f"{name}.pth")
        reported = {key: score for part in results for key, score in part["Metrics"].items()}
        test: list[str | Path] = ["test", ROOT / model["Config"], weights, "--data-root", data]
        yield Row(name, [weights, data], reported, [*test, "--work-dir", Path(args.work_dir, name)])


def classifiers(args: argparse.Namespace) -> Iterator[Row]:
    """The ImageNet classifiers."""
    data = Path(args.imagenet)
    for name, file in IMAGENET_FILES.items():
        weights = Path(args.weights, f"{name}.pth")
        test: list[str | Path] = ["classify", weights, "--imagenet", data]
        out = Path(args.work_dir, name, "metrics.json")
        yield Row(name, [weights, data], {"top-1": file.top1}, [*test, "--json", out])


def zoo() -> list[dict[str, Any]]:
    """The models of the metafiles that ``model-index.yml`` imports."""
    metafiles = load(ROOT / "model-index.yml")["Import"]
    return [model for metafile in metafiles for model in load(ROOT / metafile)["Models"]]


def evaluate(row: Row, folder: Path) -> dict[str, float]:
    """Evaluate a row by our tool, whose output goes to a log in a folder; scores in per cent.

    Raises:
        UserError: if it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "test.log"
    print(f"{row.name:<52} testing, log: {log}", flush=True)
    tool, *arguments = row.tool
    command = [sys.executable, ROOT / f"tools/{tool}.py", *arguments]
    with log.open("w") as file:
        ran = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
    if ran.returncode:
        end = "\n".join(log.read_text().splitlines()[-10:])
        raise UserError(f"testing {row.name} failed; the end of {log}:\n{end}")
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    metrics = found.get("metrics", found)
    return {
        name: metrics[key] * factor for name, (key, factor) in METRICS.items() if key in metrics
    }


if __name__ == "__main__":
    run_tool(main)
