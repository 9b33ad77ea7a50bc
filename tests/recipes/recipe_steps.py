"""What a user does with a recipe, from training to other people's tools, step by step.

Every step runs tools, and raises ``Broken`` if the rest cannot be run or makes no sense. A training
gets its signals when its work directory shows that it is in its middle.
"""

import json
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chain import STOPPED, TOOLS, WHOLE, Broken, Chain, logs, real_scores
from tiny_runs import difference

_SCORES = r"(coco/bbox_mAP: \d|mIoU: \d)"
_END = rf"({_SCORES}|the monitored metric did not improve in the last)"

# ---- training


def uninterrupted(chain: Chain) -> None:
    """Train to the end, over a milestone of the schedule."""
    chain.train("whole", WHOLE, last=_END)


def terminated(chain: Chain) -> None:
    """Train, and get SIGTERM in the middle: save, and exit with 75."""
    first = chain.stopped / chain.first
    how: dict[str, Any] = {"last": r"Go on with --resume \(exit code 75\)", "code": 75}
    chain.train("stopped", STOPPED, stop=(signal.SIGTERM, first.exists), **how)


def killed(chain: Chain) -> None:
    """Go on, and get SIGKILL a little later."""
    known = set(logs(chain.stopped))

    def has_gone_on() -> bool:
        return any("loss" in path.read_text() for path in set(logs(chain.stopped)) - known)

    how: dict[str, Any] = {"last": None, "code": -signal.SIGKILL}
    chain.train("killed", STOPPED, "--resume", stop=(signal.SIGKILL, has_gone_on), **how)


def resumed(chain: Chain) -> None:
    """Go on to the end."""
    chain.train("resumed", STOPPED, "--resume", last=_END)


def identical(chain: Chain) -> None:
    """Both runs end with the same weights, averages, optimizer, schedules, losses and scores."""
    found = difference(chain.whole / chain.last, chain.stopped / chain.last)
    if found:
        raise Broken(f"the stopped run differs from the other in {found}")


def tested(chain: Chain) -> None:
    """Test the checkpoint: the scores are those of the last validation."""
    wanted = chain.scores(chain.stopped)
    flags = ("--show-dir", "pictures", "--work-dir", "tested")
    chain.tool("tested", TOOLS / "test.py", *chain.result(), *flags, last="^for tools/report.py: ")
    found = json.loads((chain.folder / "tested/metrics.json").read_text())["metrics"]
    require_same(wanted, real_scores(found))
    if not [*(chain.folder / "pictures").rglob("*.[jp][pn]g")]:
        raise Broken("no pictures")


def predicted(chain: Chain) -> None:
    """Predict on the images."""
    arguments = (*chain.result(), str(chain.images), "--score-thr", "0.01")
    chain.tool("predicted", TOOLS / "predict.py", *arguments, last="^predicted on 2 images")
    require_files(chain.folder / "predictions/drawn", 2)


def reported(chain: Chain) -> None:
    """Make the report of the training and the test."""
    for name in ("metrics.json", "evaluation.json"):
        shutil.copy(chain.folder / "tested" / name, chain.stopped)
    chain.tool("reported", TOOLS / "report.py", STOPPED, last="^report: ")


def converted(chain: Chain) -> None:
    """Convert the checkpoint to plain weights."""
    arguments = (chain.result()[1], "plain.pth")
    chain.tool("converted", TOOLS / "convert_checkpoint.py", *arguments, last="^written: ")


def tested_by_stock(chain: Chain) -> None:
    """Test the plain weights with the package's own tool: the scores are those of ours."""
    spec = find_spec(chain.package)
    assert spec is not None and spec.origin is not None
    script = Path(spec.origin).parent / ".mim/tools/test.py"
    arguments = (chain.result()[0], "plain.pth", "--work-dir", "stock")
    chain.tool("stock", script, *arguments, last=_SCORES)
    found = json.loads(next((chain.folder / "stock").glob("*/*.json")).read_text())
    wanted = json.loads((chain.folder / "tested/metrics.json").read_text())["metrics"]
    require_same(real_scores(wanted), real_scores(found))


def inferred_by_stock(chain: Chain) -> None:
    """Predict one image with the package's Inferencer."""
    image = min(chain.images.iterdir())
    arguments = (chain.package, *chain.result(), str(image), "inferred")
    chain.tool("inferred", Path(__file__).with_name("inferencer.py"), *arguments, last="^Inference")
    require_files(chain.folder / "inferred/vis", 1)


def drawn(chain: Chain) -> None:
    """Draw what agents do, where there are some."""
    image = str(min(chain.images.iterdir()))
    arguments = (*chain.result(), image, "--stage", "1", "--out", "agents.png")
    if chain.backbone.startswith("Agent"):
        chain.tool("drawn", TOOLS / "visualize_attention.py", *arguments, last="^written: ")
        return
    chain.tool("drawn", TOOLS / "visualize_attention.py", *arguments, last=None, code=1)


def counted(chain: Chain) -> None:
    """Count parameters and multiply-adds."""
    arguments = (str(chain.config), "--shape", "128", "160")
    chain.tool("counted", TOOLS / "get_flops.py", *arguments, last="^model ")


def exported(chain: Chain) -> None:
    """Export with random weights to ONNX, run that, and compare."""
    arguments = (str(chain.config), "--out", "model.onnx")
    chain.tool("exported", TOOLS / "export.py", *arguments, last="^wrote ")


TRAINING = (uninterrupted, terminated, killed, resumed, identical)
USING = (tested, predicted, reported, converted, tested_by_stock, inferred_by_stock)
LOOKING = (drawn, counted)


def require_same(wanted: dict[str, float], found: dict[str, float]) -> None:
    """Raise Broken if scores differ; those in logs are rounded."""
    if len(wanted) < 2 or wanted.keys() != found.keys():
        raise Broken(f"scores {sorted(wanted)} and {sorted(found)}")
    for name, value in wanted.items():
        if abs(value - found[name]) > 1e-4 and not (value != value and found[name] != found[name]):
            raise Broken(f"{name} is {found[name]}, and was {value}")


def require_files(folder: Path, count: int) -> None:
    """Raise Broken if there are not so many files in a folder."""
    found = len([*folder.iterdir()]) if folder.is_dir() else 0
    if found != count:
        raise Broken(f"{found} files in {folder} instead of {count}")
