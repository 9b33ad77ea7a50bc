"""The tools, run as users run them, and a training and a test of each demo task to look at."""

import json
import os
import pickle
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fork_server
import pytest
from helpers import SMALL
from torch import Tensor

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "tools"
CONFIGS = ROOT / "configs"
COCO, ADE = "agent_pvt_maskrcnn.py", "agent_pvt_semantic_fpn.py"
COCO_DEMO, ADE_DEMO = "demo/agent_pvt_maskrcnn_demo.py", "demo/agent_pvt_semantic_fpn_demo.py"

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Task:
    """A demo config, and the settings that cut its runs short."""

    config: str
    data: str  # folder in the generated set
    train_ann: str
    two: tuple[str, ...]  # settings for two iterations
    four: tuple[str, ...]
    checkpoints: tuple[str, str]  # after two and after four iterations
    metrics: tuple[str, ...]
    class_bias: str  # of the layer that gives an object or a pixel its class
    labels: Callable[[Any], Tensor]  # in a prediction
    settings: tuple[str, ...]


TASKS = {
    "detection": Task(
        COCO_DEMO,
        "coco",
        "annotations/one_object.json",
        ("train_cfg.max_epochs=1",),
        ("train_cfg.max_epochs=2",),
        ("epoch_1.pth", "epoch_2.pth"),
        ("coco/bbox_mAP", "coco/bbox_mAP_50", "coco/segm_mAP", "coco/segm_mAP_50"),
        "roi_head.bbox_head.fc_cls.bias",
        lambda prediction: prediction["pred_instances"]["labels"],
        (
            "default_hooks.checkpoint.interval=1",
            "train_cfg.val_interval=1",
            # Losses are means over what a process has. They are the same for one process and for
            # two where images bring equal numbers of anchors, proposals and objects, and nothing
            # is drawn at random: every anchor counts, and only the objects are positive.
            "model.data_preprocessor.pad_size_divisor=160",
            "model.train_cfg.rpn.sampler.num=100000",
            "model.train_cfg.rpn_proposal.max_per_img=20",
            "model.train_cfg.rcnn.sampler.num=100",
            "model.train_cfg.rcnn.assigner.pos_iou_thr=0.999",
            "model.train_cfg.rcnn.assigner.neg_iou_thr=0.999",
            "model.train_cfg.rcnn.assigner.min_pos_iou=0.999",
        ),
    ),
    "segmentation": Task(
        ADE_DEMO,
        "ade",
        "annotations/training",
        ("train_cfg.max_iters=2",),
        ("train_cfg.max_iters=4",),
        ("iter_2.pth", "iter_4.pth"),
        ("mIoU", "mAcc", "aAcc"),
        "decode_head.conv_seg.bias",
        lambda prediction: prediction["pred_sem_seg"]["data"],
        ("default_hooks.checkpoint.interval=2", "train_cfg.val_interval=2"),
    ),
}


# ---- how tools are run ----


def run(*command: str, cwd: Path) -> Done:
    """Run a command on the CPU, with one thread a process and interpreters of the fork server."""
    env = {**os.environ, **fork_server.interpreter(), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def python(tool: str | Path, *arguments: str, cwd: Path) -> Done:
    """Run a tool, or the file at a path, with OpenMMLab imported beforehand."""
    env = {**os.environ, **fork_server.SETTINGS, "PYTHONWARNINGS": "ignore"}
    env[fork_server.PLAIN_CONFIGS] = "1"
    return fork_server.run([TOOLS / tool, *arguments], cwd=cwd, env=env, timeout=300)


def bash(tool: str, *arguments: str, cwd: Path) -> Done:
    return run("bash", str(TOOLS / tool), *arguments, cwd=cwd)


def output(done: Done) -> str:
    """What a command printed that must have worked."""
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def refusal(done: Done) -> str:
    """What a tool says on stderr when it cannot do what it is asked."""
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-6000:]
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1
    return done.stderr.partition("error: ")[2]


def train_flags(task: Task, folder: Path, data: Path, *more: str) -> list[str]:
    """Arguments for batches of four images, each iteration in the log."""
    where = ["--work-dir", str(folder), "--data-root", str(data / task.data)]
    settings = [
        "default_hooks.logger.interval=1",
        "train_dataloader.batch_size=4",
        "auto_scale_lr.base_batch_size=8",
        "optim_wrapper.optimizer.lr=0.02",  # warm-up begins low, and a step should show
    ]
    flags = [*where, "--train-ann", task.train_ann, "--auto-scale-lr"]
    return [*flags, "--cfg-options", *settings, *task.settings, *more]


def logged(work_dir: Path) -> list[dict[str, Any]]:
    """What the newest run in a work directory logged of each iteration."""
    newest = max(work_dir.glob("*/vis_data/scalars.json"))
    lines = [json.loads(line) for line in newest.read_text().splitlines()]
    return [line for line in lines if "loss" in line]


# ---- what the tests share ----


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated set, and training annotations of one object an image."""
    parent = tmp_path_factory.mktemp("data")
    size = ("--train", "9", "--val", "4", "--size", "96")
    output(python("make_demo_data.py", str(parent / "demo"), *size, cwd=parent))
    folder = parent / "demo/coco/annotations"
    content = json.loads((folder / "instances_train2017.json").read_text())
    objects = [note for note in content["annotations"] if not note["iscrowd"]]
    content["annotations"] = list({note["image_id"]: note for note in objects}.values())
    assert len(content["annotations"]) == 8  # one of the scenes is empty
    (folder / "one_object.json").write_text(json.dumps(content))
    return parent / "demo"


NARROW = """
_base_ = {base!r}
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{small!r})), neck=dict(in_channels={channels!r})
)
"""


def narrow_config(task: Task, folder: Path) -> Path:
    """The demo config with a narrow backbone, of its name: tools write and read less."""
    path = folder / Path(task.config).name
    base, channels = str(CONFIGS / task.config), [*SMALL["embed_dims"]]
    path.write_text(NARROW.format(base=base, small=SMALL, channels=channels))
    return path


@dataclass(frozen=True)
class Trained:
    """A training of two iterations."""

    task: Task
    config: Path
    folder: Path
    output: str

    @property
    def checkpoint(self) -> Path:
        return self.folder / self.task.checkpoints[0]


@pytest.fixture(scope="session", params=TASKS)
def trained(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    task = TASKS[request.param]
    config = narrow_config(task, tmp_path_factory.mktemp("configs"))
    folder = tmp_path_factory.mktemp("trained")
    flags = train_flags(task, folder, data, *task.two)
    done = python("train.py", str(config), *flags, cwd=folder)
    return Trained(task, config, folder, output(done))


@dataclass(frozen=True)
class Tested:
    """A test of the checkpoint of that training."""

    folder: Path
    output: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "metrics.json").read_text())

    @property
    def evaluation(self) -> dict[str, Any]:
        return json.loads((self.folder / "evaluation.json").read_text())

    @property
    def predictions(self) -> dict[str, Any]:
        """What was predicted for each image."""
        found = pickle.loads((self.folder / "predictions.pkl").read_bytes())
        by_image = {Path(each["img_path"]).stem: each for each in found}
        assert len(by_image) == len(found)
        return by_image


def dump_flags(task: Task, folder: Path) -> list[str]:
    """Arguments to test in batches of one image: padding to others' sizes changes predictions."""
    settings = ("test_dataloader.batch_size=1", *task.settings)
    out = ["--work-dir", str(folder), "--out", str(folder / "predictions.pkl")]
    return [*out, "--cfg-options", *settings]


@pytest.fixture(scope="session")
def tested(trained: Trained, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tested:
    folder = tmp_path_factory.mktemp("tested")
    what = (str(trained.config), str(trained.checkpoint))
    more = ("--data-root", str(data / trained.task.data), "--show-dir", "pictures")
    flags = dump_flags(trained.task, folder)
    return Tested(folder, output(python("test.py", *what, *more, *flags, cwd=folder)))
