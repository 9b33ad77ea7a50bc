"""Wrong command lines, generated from slips and mixtures of them, and how one of them ends."""

import contextlib
import io
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmengine_agent import commands

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


def _train(draw: random.Random) -> Line:
    task = draw.choice(["coco", "ade"])
    good = ["--work-dir", "made", "--device", "cpu", "--data-root", task]
    words = {"config": [CONFIGS[task][0]], "good": good}
    slips = _slips(task)
    names = tuple(draw.sample(sorted(slips), draw.choice([1, 1, 2, 3])))
    for name in names:
        slips[name](draw, words)
    return Line(("train", *(word for part in words.values() for word in part)), names)


Words = dict[str, list[str]]


def _slips(task: str) -> dict[str, Callable[[random.Random, Words], Any]]:
    """Mistakes of a training, by name; each changes the words."""
    other = "ade" if task == "coco" else "coco"

    def set_config(draw: random.Random, words: Words) -> None:
        wrong = ["nowhere.py", "agent_pvt_maskrcn_demo", "mine/agent_pvt_maskrcnn_demo.py"]
        wrong += ["broken.py", "nothing.py", ".", "", "empty.pth", "coco", CONFIGS[task][1]]
        wrong += ["mmdet::rtmdet/rtmdet_tiny", "mmdett::a.py", "mmdet::", "::", "mmdet::../x.py"]
        words["config"] = [draw.choice(wrong)]

    def set_root(draw: random.Random, words: Words) -> None:
        root = draw.choice(["nowhere", "file", "", other])
        words["good"] = [*words["good"][:-1], root]

    def set_number(draw: random.Random, words: Words) -> None:
        flag = draw.choice(
            ["--epochs", "--batch-size", "--accumulate", "--early-stop", "--find-lr"]
        )
        words["number"] = [flag, draw.choice(NUMBERS)]

    def set_size(draw: random.Random, words: Words) -> None:
        sizes = [["0", "64"], ["16", "16"], ["64"], ["64", "64", "64"], ["64x64"], ["a", "b"]]
        words["size"] = ["--image-size", *draw.choice([*sizes, ["-64", "64"], ["64,", "64"]])]

    def ask_twice(draw: random.Random, words: Words) -> None:
        option = draw.choice(sorted(TWICE))
        value = draw.choice(["1", "x", "None"])
        words["twice"] = [*TWICE[option], "--cfg-options", f"{option}={value}"]

    def exclude(draw: random.Random, words: Words) -> None:
        pairs = [["--epochs", "1", "--iters", "2"], ["--lr", "1", "--auto-scale-lr"]]
        pairs += [["--lr", "1", "--find-lr"], ["--find-lr", "--epochs", "2"]]
        words["both"] = draw.choice(pairs)

    def set_choice(draw: random.Random, words: Words) -> None:
        wrong = ["--log-to floppy", "--nan maybe", "--launcher mpirun", "--log-to", "--epoch"]
        wrong += ["--nonsense", "--device gpu", "--device cuda:99", "--log-to mlflow", "--amp"]
        words["choice"] = draw.choice(wrong).split()

    def set_option(draw: random.Random, words: Words) -> None:
        wrong = ["model", "model.type=NoSuch", "model.backbon.arch=tiny", "data_root=x"]
        wrong += ["train_cfg=None", "optim_wrapper.optimizer.type=Adamm", "train_dataloader=3"]
        words["option"] = ["--cfg-options", draw.choice(wrong)]

    def set_backbone(draw: random.Random, words: Words) -> None:
        wrong = ["--backbone resnet50", "--backbone agent_pvt_x", "--backbone"]
        wrong += ["--backbone agent_pvt_t --pretrained nowhere.pth", "--pretrained nowhere.pth"]
        wrong += ["--backbone agent_pvt_t --pretrained text.pth --from-scratch"]
        words["backbone"] = draw.choice(wrong).split()

    def set_resume(draw: random.Random, words: Words) -> None:
        # a checkpoint of another run is found when it is loaded, in the work directory
        words["resume"] = ["--resume", draw.choice(["nowhere.pth", "text.pth", "coco", "file"])]

    def set_work_dir(draw: random.Random, words: Words) -> None:
        words["good"] = ["--work-dir", "file", *words["good"][2:]]

    return {
        "config": set_config,
        "data root": set_root,
        "number": set_number,
        "size": set_size,
        "asked twice": ask_twice,
        "excluded": exclude,
        "choice": set_choice,
        "option": set_option,
        "backbone": set_backbone,
        "resume": set_resume,
        "work directory": set_work_dir,
    }


def _test(draw: random.Random) -> Line:
    task = draw.choice(["coco", "ade"])
    files = ["nowhere.pth", "text.pth", "empty.pth", "coco", "", "broken.py"]
    words = [draw.choice([*CONFIGS[task], "broken.py", "agent"]), draw.choice(files)]
    words += ["--data-root", draw.choice([task, "nowhere"]), "--work-dir", "made"]
    more = ["", "--out x.txt", "--batch-size 0", "--image-size 8 8", "--epochs 3", "--workers -1"]
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
