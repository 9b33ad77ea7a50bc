"""mmdet's and mmseg's own tools and Inferencers take our configs, as they come.

Each tool runs in a process of its own that has imported OpenMMLab and nothing of ours (see
``fork_server.py``), so that the config alone must bring the backbone.
"""

import json
import os
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import fork_server
import make_demo_data
import pytest
from helpers import SMALL
from mmengine.config import Config
from stock_cases import BOTH, CASES, FOR_OTHERS, INFERENCER, LISTED, OURS, Case

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "configs"
FAMILY = BOTH["mmsegmentation" in packages_distributions()["mmseg"]]
PACKAGES = tuple(CASES)
HERE = [(name, case) for name in CASES for case in CASES[name] if FAMILY in case.families]

TINY = """
_base_ = "{base}"
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{small})), neck=dict(in_channels={channels})
)
loader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}"))
train_dataloader = dict(batch_size=2, **loader)
val_dataloader = dict(**loader)
test_dataloader = val_dataloader
"""
MORE = {
    "mmdet": """
model.update(test_cfg=dict(rcnn=dict(max_per_img=5)))
val_evaluator = dict(ann_file="{data}/annotations/instances_val2017.json")
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1))
""",
    "mmseg": """
model.update(data_preprocessor=dict(size=(64, 64)))
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
""",
}
LONG = """
_base_ = "./config.py"
test_dataloader = dict(dataset=dict(_delete_=True, type="RepeatDataset", times=100, dataset={data}))
"""


def tools(package: str) -> Path:
    """Where an installed package has its tools."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / ".mim/tools"


# ---- how tools are run ----


@dataclass(frozen=True)
class Done:
    """What a process left."""

    code: int
    printed: str


def python(script: str | Path, *arguments: str | Path, cwd: Path) -> Done:
    """Run a Python file as a user does."""
    env = {**os.environ, **fork_server.SETTINGS, "PYTHONWARNINGS": "ignore"}
    if "print_config" not in str(script):
        env[fork_server.PLAIN_CONFIGS] = "1"
    done = fork_server.run([script, *map(str, arguments)], cwd=cwd, env=env, timeout=300)
    return Done(done.returncode, done.stdout + done.stderr)


# ---- what they run on ----


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures to train on, of which one has no objects, and two to test on."""
    folder = tmp_path_factory.mktemp("scenes") / "demo"
    make_demo_data.main([str(folder), "--train", "5", "--val", "2", "--size", "64"])
    return folder


@dataclass(frozen=True)
class Task:
    """A training with tools/train.py and what belongs to it."""

    package: str
    folder: Path
    work_dir: Path
    image: Path
    tested: str = ""  # what the stock test.py printed, run from the repository

    @property
    def checkpoint(self) -> Path:
        return next(self.work_dir.glob("*_[12].pth"))

    @property
    def predictions(self) -> Path:
        return self.folder / ("found.pkl" if self.package == "mmdet" else "labels")

    def places(self) -> dict[str, Path]:
        """What stands for the names in braces."""
        return {
            "config": self.folder / "config.py",
            "ade": self.folder / "ade.py",
            "long": self.folder / "long.py",
            "dumped": self.work_dir / "config.py",
            "checkpoint": self.checkpoint,
            "log": next(self.work_dir.glob("*/vis_data/scalars.json")),
            "predictions": self.predictions,
            "zoo": ZOO,
        }


def write_configs(package: str, scenes: Path, folder: Path) -> None:
    """A quick config that inherits from one of ours, and what is made of it."""
    demo = {"mmdet": "agent_pvt_maskrcnn_demo", "mmseg": "agent_pvt_semantic_fpn_demo"}[package]
    data = scenes / ("coco" if package == "mmdet" else "ade")
    text = TINY + MORE[package]
    fill = partial(text.format, small=SMALL, channels=list(SMALL["embed_dims"]), data=data)
    (folder / "config.py").write_text(fill(base=ZOO / "demo" / f"{demo}.py"))
    if package == "mmseg":
        (folder / "ade.py").write_text(fill(base=ZOO / "agent_pvt_semantic_fpn.py"))
        dataset = Config.fromfile(folder / "config.py").test_dataloader.dataset.to_dict()
        (folder / "long.py").write_text(LONG.format(data=dataset))


@pytest.fixture(scope="module")
def tasks(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    """Both tasks, trained with our tool and tested with the stock one."""
    return {name: train(name, scenes, tmp_path_factory.mktemp(name)) for name in PACKAGES}


def train(package: str, scenes: Path, folder: Path) -> Task:
    write_configs(package, scenes, folder)
    task = Task(package, folder, folder / "work", scenes / "coco/val2017/000000000001.jpg")
    done = python(ROOT / "tools/train.py", "config.py", "--work-dir", "work", cwd=folder)
    assert done.code == 0, done.printed
    what = (task.work_dir / "config.py", task.checkpoint, "--out", task.predictions)
    where = ("--work-dir", folder / "tested")
    done = python(tools(package) / "test.py", *what, *where, cwd=ROOT)
    assert done.code == 0, done.printed
    return replace(task, tested=done.printed)


@pytest.fixture(params=PACKAGES)
def task(request: pytest.FixtureRequest, tasks: dict[str, Task]) -> Task:
    return tasks[request.param]


# ---- which tools there are ----


@pytest.mark.parametrize("package", PACKAGES)
def test_every_listed_tool_that_ships_is_run(package: str) -> None:
    shipped = {
        str(path.relative_to(tools(package)))
        for path in tools(package).rglob("*.py")
        if path.stem in LISTED
    }
    assert {Path(tool).stem for tool in shipped} == set(LISTED)
    assert shipped - FOR_OTHERS <= {case.tool for name, case in HERE if name == package}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_fewer_tools_work_than_once(package: str) -> None:
    works = {case.tool for name, case in HERE if name == package and not case.fault}
    assert len(works) >= {"mmdet": 10, "mmseg": {"maintained": 8, "upstream": 5}[FAMILY]}[package]


@pytest.mark.parametrize(
    "case", [case for cases in CASES.values() for case in cases if case.fault], ids=lambda c: c.tool
)
def test_the_page_has_what_tools_say_that_fail(case: Case) -> None:
    assert case.fault in (ROOT / "docs/stock_tools.md").read_text()


# ---- tools ----


@pytest.mark.parametrize(("package", "case"), HERE, ids=lambda v: getattr(v, "tool", v))
def test_a_stock_tool_takes_our_configs(
    package: str, case: Case, tasks: dict[str, Task], tmp_path: Path
) -> None:
    arguments = case.arguments.format(**tasks[package].places()).split()
    done = python(tools(package) / case.tool, *arguments, cwd=tmp_path)
    missing = f"No module named '{case.needs}'"
    fault = case.fault or (missing if case.needs and find_spec(case.needs) is None else "")
    if fault:
        assert done.code == 1 and fault in done.printed, done.printed
        return
    assert done.code == 0, done.printed
    for text in case.prints:
        assert text in done.printed, done.printed
    for pattern in case.writes:
        written = [*tmp_path.glob(pattern)]
        assert written and all(path.stat().st_size for path in written), pattern


def test_a_stock_tool_runs_from_the_repository(task: Task) -> None:
    assert task.predictions.exists()
    assert {"mmdet": "coco/bbox_mAP: ", "mmseg": "mIoU: "}[task.package] in task.tested


def test_without_custom_imports_the_backbone_is_unknown(task: Task, tmp_path: Path) -> None:
    cfg = Config.fromfile(task.places()["config"], import_custom_modules=False)
    del cfg._cfg_dict["custom_imports"]
    cfg.dump(tmp_path / "config.py")
    script = tools(task.package) / "analysis_tools/get_flops.py"
    done = python(script, "config.py", cwd=tmp_path)
    assert done.code == 1
    assert f"AgentPVT is not in the {task.package}::model registry" in done.printed


# ---- Inferencers ----


@pytest.mark.parametrize("config", ["config", "dumped"])
def test_an_inferencer_predicts_with_the_names_of_the_checkpoint(
    config: str, task: Task, tmp_path: Path
) -> None:
    program = tmp_path / "infer.py"
    program.write_text(INFERENCER)
    given = (task.package, task.places()[config], task.checkpoint, task.image)
    done = python(program, *given, cwd=tmp_path)
    assert done.code == 0, done.printed
    names = json.loads((tmp_path / "names.json").read_text())
    classes = Config.fromfile(task.places()["config"]).classes
    assert names["classes"] == list(classes)
    assert len(names["palette"]) >= len(classes)
    places = {"mmdet": ("vis", "preds"), "mmseg": ("vis", "pred")}[task.package]
    for place in places:
        assert len([*(tmp_path / "out" / place).iterdir()]) == 1


def test_nothing_of_ours_is_known_beforehand(tmp_path: Path) -> None:
    probe = tmp_path / "probe.py"
    probe.write_text("import sys; print(*sys.modules)")
    done = python(probe, cwd=tmp_path)
    names = {name.partition(".")[0] for name in done.printed.split()}
    assert {"mmdet", "mmseg", "mmengine"} <= names
    assert not names & OURS
