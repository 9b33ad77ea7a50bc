"""What the pages show works: cheap commands, trainings up to the first images, Python code."""

import contextlib
import importlib
import re
from pathlib import Path
from typing import Any
from unittest import mock

import made
import make_demo_data
import pytest
import torch
from demo_scenes import CLASSES, THINGS
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from pages import COMMANDS, ROOT, Block, Command, blocks, run
from small_exports import write_detector

from agent_attention import AgentPVT
from mmengine_agent.run import test as test_run
from mmengine_agent.run import train

DEMO = "configs/demo/agent_pvt_maskrcnn_demo.py"
TRAINED = "work_dirs/agent_pvt_maskrcnn_demo/epoch_4.pth"
RUN_HERE = [
    "python tools/prepare_data.py check --format coco --root data/demo/coco "
    "--report faults.json --sheet pictures.jpg",
    "python tools/get_flops.py configs/agent_pvt_maskrcnn.py",
    f"python tools/predict.py {DEMO} {TRAINED} data/demo/coco/val2017",
    "python tools/report.py work_dirs/agent_pvt_maskrcnn_demo",
]
WRITTEN = [
    ["faults.json", "pictures.jpg"],
    [],
    ["predictions/predictions.json", "predictions/drawn/000000000001.jpg"],
    ["work_dirs/agent_pvt_maskrcnn_demo/report.html"],
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it after a training: configs, data, weights, a checkpoint."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "checkpoints").mkdir()
    torch.save({"model": AgentPVT("tiny").state_dict()}, folder / "checkpoints/agent_pvt_t.pth")
    make_demo_data.main([str(folder / "data/demo"), "--train", "3", "--val", "3", "--size", "64"])
    cfg = Config.fromfile(ROOT / DEMO)
    (folder / TRAINED).parent.mkdir(parents=True)
    torch.save({"state_dict": MODELS.build(cfg.model).state_dict(), "meta": {}}, folder / TRAINED)
    cfg.dump(folder / TRAINED.replace("epoch_4.pth", Path(DEMO).name))
    write_detector(folder / "model.onnx")
    return folder


@pytest.mark.parametrize(("line", "written"), zip(RUN_HERE, WRITTEN, strict=True))
def test_a_command_of_the_pages_runs(
    line: str, written: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, script, *arguments = words = line.split()
    assert tuple(words) in [command.words for command in COMMANDS], "not in the pages any more"
    monkeypatch.chdir(place)
    with contextlib.suppress(SystemExit):
        run(script, arguments, monkeypatch)
    assert all((place / name).is_file() for name in written)


# ---- training on one's own data: as in the pages, up to the first images ----

OWN = [c for c in COMMANDS if c.words[1] == "tools/train.py" and "--data-root" in c.words]


@pytest.fixture(scope="module")
def own(place: Path) -> Path:
    """Folders fruit, streets and rooms as the pages describe them."""
    made.panoptic(place / "sets/panoptic")
    sources = ("data/demo/coco", FRUIT), ("data/demo/ade", STREETS), ("sets/panoptic", ROOMS)
    for name, (source, files) in zip(("fruit", "streets", "rooms"), sources, strict=True):
        (place / name).mkdir()
        for theirs, ours in files.items():
            (place / name / theirs).symlink_to(place / source / ours)
    (place / "classes.txt").symlink_to("streets/classes.txt")
    return place


FRUIT = {
    "train.json": "annotations/instances_train2017.json",
    "val.json": "annotations/instances_train2017.json",
    "photos": "train2017",
}
STREETS = {
    "train": "images/training",
    "train_labels": "annotations/training",
    "val": "images/validation",
    "val_labels": "annotations/validation",
    "classes.txt": "classes.txt",
}
ROOMS = {
    "photos": "train2017",
    "panoptic_train.json": "annotations/panoptic_train2017.json",
    "panoptic_train": "annotations/panoptic_train2017",
    "panoptic_val.json": "annotations/panoptic_train2017.json",
    "panoptic_val": "annotations/panoptic_train2017",
}
NAMES = {"streets": CLASSES, "/ade": CLASSES, "rooms": (*THINGS, "ground")}  # else THINGS


@pytest.mark.parametrize("command", OWN, ids=lambda command: command.where)
def test_training_on_own_data_begins(
    command: Command, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [re.sub("^/data/", f"{own}/", word) for word in command.words[2:]]
    found: list[Any] = []
    monkeypatch.chdir(own)
    runner = mock.Mock(side_effect=lambda cfg, **_: found.append(cfg) or mock.Mock())
    monkeypatch.setattr(train, "build_runner", runner)
    run("tools/train.py", words, monkeypatch)
    (cfg,) = found
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            dataset = DATASETS.build(loader.dataset)
            assert len(dataset) and dataset[0]["inputs"].ndim == 3
            names = next((NAMES[part] for part in NAMES if part in " ".join(words)), THINGS)
            assert tuple(dataset.metainfo["classes"]) == tuple(names)


# ---- code ----

PYTHON = [block for block in blocks() if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.where)
def test_python_runs_and_its_backbones_are_built(
    block: Block, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings and tests take their arguments, and find what an earlier run left."""
    monkeypatch.chdir(place)
    done = Config.fromfile(Path(TRAINED).with_name(Path(DEMO).name))
    done.work_dir = str(Path(TRAINED).parent)
    Path(done.work_dir, "last_checkpoint").write_text(TRAINED)
    monkeypatch.setattr(train, "train", lambda args: done)
    monkeypatch.setattr(test_run, "test", lambda args: {"coco/bbox_mAP": 0.0})
    names: dict[str, Any] = {}
    models = re.split(r"(?m)^(?=model = )", block.code)  # a block may show several
    for part in models if len(models) > 2 else [block.code]:
        exec(compile(part, block.where, "exec"), names)
        for name in names.get("custom_imports", {"imports": []})["imports"]:
            importlib.import_module(name)
        if "backbone" in names.get("model", {}):
            MODELS.build(names["model"]["backbone"])


def test_inline_programs_run() -> None:
    programs = [c.words[2] for c in COMMANDS if c.words[:2] == ("python", "-c")]
    assert programs
    for program in programs:
        exec(program, {})
