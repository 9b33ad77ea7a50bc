"""The tools, run as users run them: training, resuming, testing, many processes, mistakes."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

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
    labels: Callable[[Any], torch.Tensor]  # in a prediction
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
    """Run a command on the CPU, with one thread a process."""
    here = {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    env = {**os.environ, **here, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def python(tool: str, *arguments: str, cwd: Path) -> Done:
    return run(sys.executable, str(TOOLS / tool), *arguments, cwd=cwd)


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


@pytest.fixture(scope="module")
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


@dataclass(frozen=True)
class Trained:
    """A training of two iterations."""

    task: Task
    folder: Path
    output: str

    @property
    def checkpoint(self) -> Path:
        return self.folder / self.task.checkpoints[0]


@pytest.fixture(scope="module", params=TASKS)
def trained(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    task = TASKS[request.param]
    folder = tmp_path_factory.mktemp("trained")
    flags = train_flags(task, folder, data, *task.two)
    return Trained(
        task, folder, output(python("train.py", str(CONFIGS / task.config), *flags, cwd=folder))
    )


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


@pytest.fixture(scope="module")
def tested(trained: Trained, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tested:
    folder = tmp_path_factory.mktemp("tested")
    what = (str(CONFIGS / trained.task.config), str(trained.checkpoint))
    more = ("--data-root", str(data / trained.task.data), "--show-dir", "pictures")
    flags = dump_flags(trained.task, folder)
    return Tested(folder, output(python("test.py", *what, *more, *flags, cwd=folder)))


# ---- training and testing ----


def test_training_writes_a_checkpoint_and_logs_each_iteration(trained: Trained) -> None:
    assert trained.checkpoint.is_file()
    assert [line["step"] for line in logged(trained.folder)] == [1, 2]


def test_training_validates(trained: Trained) -> None:
    for metric in trained.task.metrics:
        assert f"{metric}: " in trained.output


def test_auto_scale_lr_follows_the_batch(trained: Trained) -> None:
    assert "batch size of 8 and the current batch size is 4" in trained.output
    assert "Scaling the original LR by 0.5" in trained.output


def test_testing_prints_the_metrics_and_writes_them(trained: Trained, tested: Tested) -> None:
    report = tested.report
    assert report["config"] == str(CONFIGS / trained.task.config)
    assert report["checkpoint"] == str(trained.checkpoint)
    assert report["seconds"] > 0
    assert set(trained.task.metrics) <= report["metrics"].keys()
    for metric in trained.task.metrics:
        assert f"{metric}: {report['metrics'][metric]:.4f}" in tested.output
    assert str(tested.folder / "metrics.json") in tested.output


def test_predictions_are_written_and_drawn_for_each_image(tested: Tested) -> None:
    assert len(tested.predictions) == 4
    drawn = [*(tested.folder / "pictures").rglob("*.[jp][pn]g")]
    for name in tested.predictions:
        assert sum(name in path.name for path in drawn) == 1


def test_resuming_goes_on_where_the_checkpoint_ends(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    task = trained.task
    if task.data == "coco":  # the newest checkpoint of the work directory
        (tmp_path / trained.checkpoint.name).symlink_to(trained.checkpoint)
        (tmp_path / "last_checkpoint").write_text(str(tmp_path / trained.checkpoint.name))
        resume = ["--resume"]
    else:  # one that is named
        resume = ["--resume", str(trained.checkpoint)]
    flags = train_flags(task, tmp_path, data, *task.four, "val_cfg=None", "val_dataloader=None")
    flags += ["val_evaluator=None", "train_cfg.val_interval=99"]
    output(python("train.py", str(CONFIGS / task.config), *resume, *flags, cwd=tmp_path))
    assert [line["step"] for line in logged(tmp_path)] == [3, 4]
    assert (tmp_path / task.checkpoints[1]).is_file()
    left = Config.fromfile(tmp_path / Path(task.config).name)
    assert (left.resume, left.load_from) == (False, None)  # whoever takes it goes on from nowhere


def test_the_config_in_the_work_directory_and_any_checkpoint_are_tested_without_flags(
    trained: Trained, tested: Tested, tmp_path: Path
) -> None:
    sure = tmp_path / "sure.pth"  # of class 1, whatever it is shown
    checkpoint = torch.load(trained.checkpoint, weights_only=False)
    checkpoint["state_dict"][trained.task.class_bias][1] = 1000
    torch.save({"state_dict": checkpoint["state_dict"]}, sure)

    config = tmp_path / Path(trained.task.config).name
    text = (trained.folder / config.name).read_text()
    config.write_text(f"{text}\nresume = True\n")  # as a stock tool may leave it
    flags = dump_flags(trained.task, tmp_path)
    done = python("test.py", str(config), str(sure), *flags, cwd=tmp_path)
    again = Tested(tmp_path, output(done))
    assert again.predictions.keys() == tested.predictions.keys()
    for prediction in again.predictions.values():
        assert trained.task.labels(prediction).unique().tolist() == [1]


def test_other_tools_take_the_config_in_the_work_directory(
    trained: Trained, tmp_path: Path
) -> None:
    config = trained.folder / Path(trained.task.config).name
    program = f"""
from mmengine.config import Config
from mmengine.runner import Runner
cfg = Config.fromfile({str(config)!r})
cfg.work_dir = {str(tmp_path)!r}
Runner.from_cfg(cfg)
"""
    output(run(sys.executable, "-c", program, cwd=tmp_path))


# ---- many processes ----


def test_two_processes_log_the_losses_of_one_with_their_batches_together(
    trained: Trained, data: Path, tmp_path: Path
) -> None:
    task = trained.task
    flags = train_flags(task, tmp_path, data, *task.two, "train_dataloader.batch_size=2")
    both = output(bash("dist_train.sh", str(CONFIGS / task.config), "2", *flags, cwd=tmp_path))
    assert "batch size of 8 and the current batch size is 4" in both

    # the second losses also show that the processes took the same step, and together
    for alone, together in zip(logged(trained.folder), logged(tmp_path), strict=True):
        names = {key for key in alone if "loss" in key}
        assert len(names) >= 2
        for name in [*names, "lr"]:
            assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), name
    assert (tmp_path / task.checkpoints[0]).is_file()


def test_two_processes_test_as_one_does(
    trained: Trained, tested: Tested, data: Path, tmp_path: Path
) -> None:
    what = (str(CONFIGS / trained.task.config), str(trained.checkpoint), "2")
    flags = ["--data-root", str(data / trained.task.data), *dump_flags(trained.task, tmp_path)]
    both = Tested(tmp_path, output(bash("dist_test.sh", *what, *flags, cwd=tmp_path)))
    assert both.report["metrics"] == tested.report["metrics"]
    assert both.evaluation["confusion"] == tested.evaluation["confusion"]
    assert same(both.predictions, tested.predictions)


def same(one: Any, other: Any) -> bool:
    """Whether two predictions agree: dicts, lists and tensors of them."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and torch.allclose(one, other, atol=1e-5)
    return bool(one == other)


# ---- mistakes ----

# the tool, its arguments, and what the message must name
MISTAKES: dict[str, tuple[str, list[str], list[str]]] = {
    "no COCO": (
        "train.py",
        ["{configs}/" + COCO],
        [
            "data/coco/annotations/instances_train2017.json",
            "data/coco/annotations/instances_val2017.json",
            "data/coco/train2017",
            "data/coco/val2017",
            "--data-root",
            "make demo",
        ],
    ),
    "no ADE20K": (
        "train.py",
        ["{configs}/" + ADE],
        [
            "data/ade/ADEChallengeData2016/images/training",
            "data/ade/ADEChallengeData2016/annotations/validation",
            "--data-root",
            "make demo",
        ],
    ),
    "nothing to test on": (
        "test.py",
        ["{configs}/" + COCO_DEMO, "{checkpoint}"],
        ["data/demo/coco", "make_demo_data.py"],
    ),
    "no config": ("train.py", ["nowhere.py"], ["nowhere.py", "configs/"]),
    "no config to test": ("test.py", ["nowhere.py", "{checkpoint}"], ["nowhere.py", "configs/"]),
    "a config with a slip": ("train.py", ["{broken}"], ["{broken}", "SyntaxError"]),
    "an unknown model": (
        "train.py",
        ["{configs}/" + COCO_DEMO, "--data-root", "{coco}", "--cfg-options", "model.type=NoSuch"],
        ["NoSuch"],
    ),
    "no weights for COCO": (
        "train.py",
        ["{configs}/" + COCO, "--data-root", "{coco}"],
        ["checkpoints/agent_pvt_t.pth", "docs/weights.md", "model.backbone.init_cfg=None"],
    ),
    "no weights for ADE20K": (
        "train.py",
        ["{configs}/" + ADE, "--data-root", "{ade}"],
        ["checkpoints/agent_pvt_t.pth", "docs/weights.md", "model.backbone.init_cfg=None"],
    ),
    "no checkpoint to test": (
        "test.py",
        ["{configs}/" + COCO_DEMO, "nowhere.pth", "--data-root", "{coco}"],
        ["nowhere.pth"],
    ),
    "a damaged checkpoint": (
        "test.py",
        ["{configs}/" + ADE_DEMO, "{broken}", "--data-root", "{ade}"],
        ["{broken}"],
    ),
    "no checkpoint to resume": (
        "train.py",
        ["{configs}/" + COCO_DEMO, "--data-root", "{coco}", "--resume", "nowhere.pth"],
        ["--resume", "nowhere.pth"],
    ),
    "mixed precision without a GPU": (
        "train.py",
        ["{configs}/" + ADE_DEMO, "--data-root", "{ade}", "--amp"],
        ["--amp", "GPU"],
    ),
    "predictions into a text file": (
        "test.py",
        ["{configs}/" + ADE_DEMO, "{checkpoint}", "--data-root", "{ade}", "--out", "out.txt"],
        ["--out", "out.txt", ".pkl"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_1(mistake: str, data: Path, tmp_path: Path) -> None:
    checkpoint, broken = tmp_path / "checkpoint.pth", tmp_path / "broken.py"
    torch.save({"state_dict": {}}, checkpoint)
    broken.write_text("model = dict(\n")
    places = {"configs": CONFIGS, "coco": data / "coco", "ade": data / "ade"}
    places |= {"checkpoint": checkpoint, "broken": broken}
    tool, arguments, wanted = MISTAKES[mistake]
    empty = tmp_path / "empty"
    empty.mkdir()
    said = refusal(python(tool, *(each.format(**places) for each in arguments), cwd=empty))
    for words in wanted:
        assert words.format(**places) in said


@pytest.mark.parametrize("count", ["0", "two", "-1", "1.5", ""])
@pytest.mark.parametrize("tool", ["dist_train.sh", "dist_test.sh"])
def test_a_bad_number_of_processes_is_refused(tool: str, count: str, tmp_path: Path) -> None:
    checkpoint = ["nowhere.pth"] if tool == "dist_test.sh" else []
    done = bash(tool, str(CONFIGS / ADE_DEMO), *checkpoint, count, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"GPUS must be a positive number, got '{count}'" in done.stderr


@pytest.mark.parametrize("tool", ["dist_train.sh", "dist_test.sh"])
def test_too_few_arguments_show_how_it_is_called(tool: str, tmp_path: Path) -> None:
    done = bash(tool, str(CONFIGS / ADE_DEMO), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"bash tools/{tool} CONFIG" in done.stderr
