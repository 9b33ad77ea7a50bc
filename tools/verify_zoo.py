"""Evaluate published weights and hold every row of the model zoo against its reported score.

    python tools/verify_zoo.py --weights published            # data in data/coco and data/ade
    python tools/verify_zoo.py --weights published --data /datasets --only retinanet

A row is evaluated if WEIGHTS/NAME.pth and its data are there; what is absent is named. So are rows
of which no score is reported. A row that fails does not stop the others. Exits with 1 if a score is
off by more than the tolerance, a row failed, or nothing could be evaluated.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from mmengine.fileio import load

from mmengine_agent.errors import UserError
from mmengine_agent.run.exit import run_tool

ROOT = Path(__file__).resolve().parent.parent
DATA = {"COCO": "coco", "ADE20K": "ade/ADEChallengeData2016"}  # below --data
# The metafiles' names of scores: the tools' names of metrics, and the factor to per cent.
METRICS = {
    "box AP": ("coco/bbox_mAP", 100),
    "mask AP": ("coco/segm_mAP", 100),
    "mIoU": ("mIoU", 1),
    "mAcc": ("mAcc", 1),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, metavar="DIR", help="folder of NAME.pth files")
    parser.add_argument(
        "--data", default="data", metavar="DIR", help=f"holds {' and '.join(DATA.values())}"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has TEXT")
    parser.add_argument("--tolerance", type=float, default=0.2, help="in points (default: 0.2)")
    parser.add_argument("--work-dir", default="work_dirs/verify_zoo", metavar="DIR")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    chosen = [model for model in zoo() if args.only in model["Name"]]
    if not chosen:
        raise UserError(f"--only: no row of docs/model_zoo.md has {args.only!r} in its name")
    off: dict[str, list[float]] = {}
    failed = []
    for model in chosen:
        name, results = model["Name"], model["Results"]
        data = Path(args.data, DATA[results[0]["Dataset"]])
        weights = Path(args.weights, f"{name}.pth")
        absent = [path for path in (weights, data) if not path.exists()]
        if absent:
            print(f"{name:<52} not evaluated: no {absent[0]}", flush=True)
            continue
        try:
            found = evaluate(ROOT / model["Config"], weights, data, Path(args.work_dir, name))
        except UserError as error:
            failed.append(name)
            print(error, flush=True)
            continue
        off[name] = compare(name, found, results)
    if failed:
        raise UserError(f"{len(failed)} rows failed: {', '.join(failed)}")
    if not off:
        raise UserError("nothing was evaluated: docs/model_zoo.md says where the weights are")
    most = max((each for scores in off.values() for each in scores), default=0)
    if most > args.tolerance:
        raise UserError(f"a score is {most:.2f} points off, more than {args.tolerance}")


def compare(name: str, found: dict[str, float], results: list[dict[str, Any]]) -> list[float]:
    """Print the scores of a row beside those reported, if any; how far each of these is off."""
    off = []
    reported = {key: value for part in results for key, value in part["Metrics"].items()}
    for score in dict.fromkeys([*reported, *found]):
        line = f"{score:<8} {found[score]:6.2f}  "
        if score in reported:
            change = found[score] - reported[score]
            off.append(math.inf if math.isnan(change) else abs(change))  # nan passes no comparison
            line += f"reported {reported[score]:6.2f}  {change:+.2f}"
        else:
            line += "none reported"
        print(f"{name:<52} {line}", flush=True)
    return off


def zoo() -> list[dict[str, Any]]:
    """The models of the metafiles that ``model-index.yml`` imports."""
    metafiles = load(ROOT / "model-index.yml")["Import"]
    return [model for metafile in metafiles for model in load(ROOT / metafile)["Models"]]


def evaluate(config: Path, weights: Path, data: Path, folder: Path) -> dict[str, float]:
    """Test weights with ``tools/test.py``, which writes into a folder; scores in per cent.

    Raises:
        UserError: if testing fails.
    """
    command: list[str | Path] = [sys.executable, ROOT / "tools/test.py", config, weights]
    command += ["--data-root", data, "--work-dir", folder]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "test.log"
    print(f"{weights.stem:<52} testing, log: {log}", flush=True)
    with log.open("w") as file:
        ran = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
    if ran.returncode:
        end = "\n".join(log.read_text().splitlines()[-10:])
        raise UserError(f"testing {weights.stem} failed; the end of {log}:\n{end}")
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["metrics"]
    return {
        name: metrics[key] * factor for name, (key, factor) in METRICS.items() if key in metrics
    }


if __name__ == "__main__":
    run_tool(main)
