"""Wrong command lines, generated from slips and mixtures of them, and how one of them ends."""

import contextlib
import io
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from agent_toolkit import commands

CONFIGS = {
    "coco": ["agent_pvt_maskrcnn_demo", "mask-rcnn_agent-swin-t_fpn_1x_coco"],
    "ade": ["agent_pvt_semantic_fpn_demo", "fpn_agent-pvt-s_8xb2-40k_ade20k-512x512"],
}
# a setting that a training flag decides, with a value for the flag
TWICE = {
    "train_dataloader.batch_size": ["--batch-size", "2"],
    "val_dataloader.num_workers": ["--workers", "0"],
    "optim_wrapper.optimizer.lr": ["--lr", "1e-3"],
    "train_cfg.max_epochs": ["--epochs", "1"],
    "randomness.seed": ["--seed", "3"],
    "work_dir": ["--work-dir", "other"],
    "optim_wrapper.accumulative_counts": ["--accumulate", "2"],
    "val_dataloader.dataset.data_root": [],
}
NUMBERS = ["0", "-1", "1.5", "ten", "", "nan", "1e3"]


class Line(NamedTuple):
    """A command line, and the kinds of its mistakes."""

    words: tuple[str, ...]
    slips: tuple[str, ...]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def faults(self) -> list[str]:
        """What is wrong with the end of a wrong command line."""
        said = self.out + self.err
        errors = [line for line in self.err.splitlines() if "error: " in line]
        return [
            *([] if self.code in (1, 2) else [f"exit code {self.code}"]),
            *([] if len(errors) == 1 else [f"{len(errors)} messages"]),
            *(["a traceback"] if "Traceback" in said else []),
        ]


def make_files(folder: Path, data: Path) -> None:
    """What the lines name, in the folder that they run in; ``data`` is of the demo."""
    (folder / "coco").symlink_to(data / "coco")
    (folder / "ade").symlink_to(data / "ade")
    torch.save({"state_dict": {}}, folder / "empty.pth")
    (folder / "text.pth").write_text("no checkpoint")
    (folder / "broken.py").write_text("model = dict(\n")
    (folder / "nothing.py").write_text("a = 1\n")
    (folder / "file").write_text("")
    (folder / "colours.txt").write_text("road 1 2 3\nsky 4 5 6\n")
    (folder / "twice.txt").write_text("road 1 2 3\nsky 1 2 3\n")


def generate(count: int, seed: int = 0) -> Iterator[Line]:
    """Wrong command lines, no two the same."""
    draw, seen = random.Random(seed), set()
    while len(seen) < count:
        line = draw.choice([_command, _train, _train, _train, _test, _predict, _others])(draw)
        if line.words not in seen:
            seen.add(line.words)
            yield line


def _command(draw: random.Random) -> Line:
    word = draw.choice(["trian", "tests", "", "-x", "--hlep", "Train", "configs", "flop", "report"])
    more = {"configs": ["no-such-word", "nor-this"], "report": [draw.choice(["nowhere", "file"])]}
    return Line((word, *more.get(word, ["x"])), ("command",))


# mistakes of a training by name: what is written instead, one of these
SLIPS = {
    "size": [
        *("--image-size 0 64", "--image-size 16 16", "--image-size 64", "--image-size 64 64 64"),
        *("--image-size 64x64", "--image-size a b", "--image-size -64 64", "--image-size 64, 64"),
    ],
    "excluded": [
        *("--epochs 1 --iters 2", "--lr 1 --auto-scale-lr", "--lr 1 --find-lr"),
        "--find-lr --epochs 2",
    ],
    "choice": [
        *("--log-to floppy", "--nan maybe", "--launcher mpirun", "--log-to", "--epoch"),
        *("--nonsense", "--device gpu", "--device cuda:99", "--log-to mlflow"),
    ],
    "option": [
        f"--cfg-options {each}"
        for each in (
            *("model", "model.type=NoSuch", "model.backbon.arch=tiny", "data_root=x"),
            *("train_cfg=None", "optim_wrapper.optimizer.type=Adamm", "train_dataloader=3"),
        )
    ],
    "backbone": [
        *("--backbone resnet50", "--backbone agent_pvt_x", "--backbone", "--agents few"),
        *("--backbone agent_pvt_t --pretrained nowhere.pth", "--pretrained nowhere.pth"),
        "--backbone agent_pvt_t --pretrained text.pth --from-scratch",
    ],
    "agents": [
        *("--agents 0", "--agents -3", "--agents 1.5", "--agents rule bounded", "--agents"),
        "--backbone flatten_pvt_t --from-scratch --agents bounded",
        "--agents rule --cfg-options model.backbone.agent_shapes=bounded",
    ],
    "optimizer": [
        *("--keep-optimizer", "--keep-optimizer yes", "--keep-optimizer --from-scratch"),
        "--backbone agent_deit_t --from-scratch --keep-optimizer",
    ],
    # of label maps: wrong for a detector, and for a segmentor
    "labels": [
        *("--labels-from 2", "--labels-from one", "--labels-from", "--palette nowhere.txt"),
        *("--palette file", "--palette coco", "--palette colours.txt --labels-from 0"),
        *("--palette colours.txt --classes a b", "--palette twice.txt", "--palette broken.py"),
        *("--classes nowhere.txt", "--classes a a b", "--classes"),
    ],
    # a checkpoint of another run is found when it is loaded, in the work directory
    "resume": [f"--resume {each}" for each in ("nowhere.pth", "text.pth", "coco", "file")],
    "work directory": ["--work-dir file"],
}
WRONG_CONFIGS = [
    *("nowhere.py", "agent_pvt_maskrcn_demo", "mine/agent_pvt_maskrcnn_demo.py", "broken.py"),
    *("nothing.py", ".", "", "empty.pth", "coco", "mmdet::rtmdet/rtmdet_tiny", "mmdett::a.py"),
    *("mmdet::", "::", "mmdet::../x.py"),
]
COUNTED = ["--epochs", "--batch-size", "--accumulate", "--early-stop", "--find-lr"]


def _train(draw: random.Random) -> Line:
    task = draw.choice(["coco", "ade"])
    config, root, more = CONFIGS[task][0], task, []
    kinds = ["config", "data root", "number", "asked twice", *SLIPS]
    names = tuple(draw.sample(kinds, draw.choice([1, 1, 2, 3])))
    for name in names:
        if name == "config":
            config = draw.choice([*WRONG_CONFIGS, CONFIGS[task][1]])
        elif name == "data root":
            root = draw.choice(["nowhere", "file", "", "ade" if task == "coco" else "coco"])
        elif name == "number":
            more += [draw.choice(COUNTED), draw.choice(NUMBERS)]
        elif name == "asked twice":
            option = draw.choice(sorted(TWICE))
            value = draw.choice(["1", "x", "None"])
            more += [*TWICE[option], "--cfg-options", f"{option}={value}"]
        else:
            more += draw.choice(SLIPS[name]).split()
    good = ["--work-dir", "made", "--device", "cpu", "--data-root", root]
    return Line(("train", config, *good, *more), names)


def _test(draw: random.Random) -> Line:
    task = draw.choice(["coco", "ade"])
    files = ["nowhere.pth", "text.pth", "empty.pth", "coco", "", "broken.py"]
    words = [draw.choice([*CONFIGS[task], "broken.py", "agent"]), draw.choice(files)]
    words += ["--data-root", draw.choice([task, "nowhere"]), "--work-dir", "made"]
    more = ["", "--out x.txt", "--batch-size 0", "--image-size 8 8", "--epochs 3", "--workers -1"]
    more += ["--agents many", "--labels-from 3", "--palette nowhere.txt", "--keep-optimizer"]
    words += draw.choice(
        [*more, "--batch-size 2 --cfg-options test_dataloader.batch_size=3"]
    ).split()
    return Line(("test", *words), ("test",))


def _predict(draw: random.Random) -> Line:
    files = ["nowhere.pth", "text.pth", "empty.pth"]
    words = [draw.choice([*CONFIGS["coco"], "nothing.py"]), draw.choice(files)]
    words += [draw.choice(["coco/val2017", "nowhere", "file", "*.gif"])]
    more = [
        "",
        "--batch-size 0",
        "--tile 3",
        "--overlap 4",
        "--tile 64 --max-memory 8GB",
        "--max-memory much",
        "--device gpu",
        "--no-draw --no-results",
    ]
    return Line(("predict", *words, *draw.choice(more).split()), ("predict",))


def _others(draw: random.Random) -> Line:
    config = draw.choice([*CONFIGS["ade"], "agent_pvt", "broken.py"])
    lines = [
        ["flops", config, "--shape", draw.choice(["8", "64"]), draw.choice(["8", "x"])],
        ["export", config, "empty.pth", "--out", draw.choice(["a.txt", "a.pt2", "a"])],
        ["convert", draw.choice(["nowhere", "text.pth", "empty.pth"]), "out.pth"],
        ["convert", "empty.pth", draw.choice(["out.txt", "file"])],
        ["attention", config, draw.choice(["none", "empty.pth"]), "nowhere.jpg"],
        ["classify", draw.choice(["text.pth", "nowhere.pth"]), *draw.choice([[], ["file"]])],
        ["data", "check", "--format", draw.choice(["coco", "yolo"]), "--root", "nowhere"],
        ["data", draw.choice(["", "download", "chek"])],
        ["data", "convert", "--from", draw.choice(["yolo", "x"]), "nowhere", "--out", "converted"],
        ["data", "split", "nowhere.json", "--val", draw.choice(["0.2", "2", "x"])],
        ["backbone", config, draw.choice(["agent_pvt_x", "agent_pvt_t"]), "--out", "made.txt"],
        ["swap", config, draw.choice(["nowhere.pth", "text.pth"]), "--data-root", "ade"],
        ["swap", config, "empty.pth", *draw.choice(["--grids 0", "--max-loss 2"]).split()],
        ["flops", config, "--agents", draw.choice(["few", "0", "bounded bounded"])],
        ["backbone", config, "flatten_pvt_t", "--agents", "9", "--out", "made.py"],
        ["report", "coco", "--checkpoint", draw.choice(["nowhere.pth", "empty.pth"])],
    ]
    return Line(tuple(draw.choice(lines)), ("others",))


def call(line: Line) -> Ended:
    """Run a command line in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    code: Any = None
    try:
        sys.argv = ["agent-attention", *line.words]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            commands.main()
    except SystemExit as stop:
        code = stop.code
    except Exception as error:  # what the interpreter would print with a traceback
        err.write(f"Traceback: {type(error).__name__}: {error}")
        code = -1
    finally:
        sys.argv = before
    return Ended(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())
