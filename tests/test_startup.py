"""Checks before the first iteration: what is wrong is found, and nothing else."""

import copy
import json
import shutil
from argparse import ArgumentParser
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import mmdet
import mmseg
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tool_runs import CONFIGS, TASKS, python, refusal

from mmengine_agent.data.user_data import DataFlags, point_at
from mmengine_agent.errors import UserError
from mmengine_agent.preflight.checks import (
    class_problems,
    loader_problems,
    require_ready,
    work_dir_problems,
)
from mmengine_agent.preflight.keys import unread_keys
from mmengine_agent.run import train
from mmengine_agent.run.flags import add_training_flags
from mmengine_agent.run.setup import add_common_flags
from mmengine_agent.task import task_of

OURS = sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
STOCK = [Path(str(package.__file__)).parent / ".mim/configs" for package in (mmdet, mmseg)]
EVERY = 30  # of the stock configs: more than a thousand
# keys of stock configs that really nothing reads, and classes that really differ
TRUE = ("config: models", "names 21 classes")


@cache
def from_file(path: Path) -> Config:
    return Config.fromfile(path)


def read(path: Path, options: dict[str, Any] | None = None) -> Config:
    cfg = copy.deepcopy(from_file(path))
    cfg.merge_from_dict(options or {})
    init_default_scope(cfg.default_scope)
    return cfg


# ---- settings that nothing reads


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_there_is_no_false_alarm(path: Path) -> None:
    assert alarms(read(path)) == []


def test_there_is_no_false_alarm_over_stock_configs() -> None:
    """Of a sample of them; `docs/misbehaving_data.md` says what was found in all."""
    count = 0
    for folder in STOCK:
        found = (path for path in sorted(folder.rglob("*.py")) if "_base_" not in path.parts)
        for path in list(found)[::EVERY]:
            try:
                cfg = Config.fromfile(path)
            except (ImportError, OSError):  # needs a package, or a config of another one
                continue
            if "model" in cfg:
                init_default_scope(cfg.get("default_scope") or folder.parts[-3])
                false = [each for each in alarms(cfg) if not any(true in each for true in TRUE)]
                assert false == [], path
                count += 1
    assert count > 1000 / EVERY


def alarms(cfg: Config) -> list[str]:
    return [*unread_keys(cfg, {}), *(problem.text for problem in class_problems(cfg))]


class Slip(NamedTuple):
    """A setting with a slip, and the name that was meant."""

    key: str
    meant: str
    value: Any = 1
    task: str = "detection"


SLIPS = [
    Slip("train_dataloader.batchsize", "batch_size"),
    Slip("train_dataloader.num_worker", "num_workers"),
    Slip("train_cfg.max_epoch", "max_epochs"),
    Slip("optim_wrapper.optimizer.weight_decy", "weight_decay"),
    Slip("optim_wrapper.clip_gradd", "clip_grad", {}),
    Slip("optim_wrapper.paramwise_cfg.norm_decay_mul", "norm_decay_mult"),
    Slip("model.backbone.agent_shape_s", "agent_shapes"),
    Slip("model.test_cfg.rcnn.score_thrr", "score_thr"),
    Slip("model.test_cfg.rcnn.score_threshold", "score_thr"),
    Slip("model.neck.out_chanels", "out_channels"),
    Slip("model.train_cfg.rpn_proposal.nms_prre", "nms_pre"),
    Slip("default_hooks.checkpoint.max_keep_ckpt", "max_keep_ckpts"),
    Slip("default_hooks.chekpoint", "checkpoint", {"interval": 2}),
    Slip("train_dataloader.dataset.filter_cgf", "filter_cfg", {}),
    Slip("custom_hook", "custom_hooks", []),
    Slip("load_form", "load_from", "x.pth"),
    Slip("train_cfg.max_iter", "max_iters", 1, "segmentation"),
    Slip("train_dataloader.dataset.image_suffix", "img_suffix", ".png", "segmentation"),
    Slip("train_dataloader.dataset.pipeline.0.to_float", "to_float32", True, "segmentation"),
]


@pytest.mark.parametrize("task", TASKS)
def test_slips_are_named_with_what_was_meant(task: str, tmp_path: Path) -> None:
    """In ``--cfg-options``, and in a file that inherits; there, lists are replaced as a whole."""
    slips = [slip for slip in SLIPS if slip.task == task]
    base, options = CONFIGS / TASKS[task].config, {slip.key: slip.value for slip in slips}
    require_named(slips, list(unread_keys(read(base, options), options)))

    slips = [slip for slip in slips if ".0." not in slip.key]
    own = Config()
    own.merge_from_dict({slip.key: slip.value for slip in slips})
    settings = {"_base_": str(base), **own.to_dict()}
    path = tmp_path / "own.py"
    path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
    require_named(slips, list(unread_keys(read(path), {})))


def test_bases_that_are_computed_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(f"_base_ = [{str(CONFIGS / TASKS['detection'].config)!r}] + []\n")
    assert list(unread_keys(read(path), {})) == []


def require_named(slips: list[Slip], found: list[str]) -> None:
    for slip in slips:
        (text,) = (each for each in found if f"config: {slip.key}: " in each)
        assert f"did you mean {slip.meant}?" in text
    assert len(found) == len(slips)


def test_an_option_that_comes_too_late_is_named() -> None:
    """The file's variables have been read when options are merged."""
    options = {"data_root": "elsewhere", "max_epochs": 3, "train_cfg.max_epochs": 3}
    found = list(unread_keys(read(CONFIGS / TASKS["detection"].config, options), options))
    assert len(found) == 2
    places = ("train_dataloader.dataset", "train_cfg")
    for text, name, place in zip(found, options, places, strict=False):
        assert f"{name}: nothing reads it any more; what counts is {place}.{name}" in text


def test_variables_of_a_file_are_no_slips() -> None:
    options = {"val_evaluator_abs": {}, "train_pipeline": [], "max_epochs": 3}
    assert list(unread_keys(read(CONFIGS / TASKS["detection"].config, options), {})) == []


# ---- data and classes


def own(task: str, data: Path, folder: Path, options: dict[str, Any] | None = None) -> Config:
    """A demo config on a copy of the generated set."""
    root = folder / "set"
    if not root.exists():
        shutil.copytree(data / TASKS[task].data, root)
    cfg = read(CONFIGS / TASKS[task].config, options)
    point_at(cfg, DataFlags(root=str(root)))
    cfg.work_dir = str(folder / "work")
    return cfg


def spoilt(data: Path, folder: Path, spoil: Callable[[Any], Any]) -> list[str]:
    """What is found in a demo set whose training annotations were changed."""
    cfg = own("detection", data, folder)
    path = folder / "set/annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps([] if spoil(content) == "a list" else content))
    return data_problems(cfg)


def data_problems(cfg: Config) -> list[str]:
    found = list(task_of(cfg).data_problems(cfg, ("train", "val")))
    assert all(problem.fatal for problem in found)
    return [problem.text for problem in found]


@pytest.mark.parametrize("task", TASKS)
def test_a_good_set_has_no_problems(task: str, data: Path, tmp_path: Path) -> None:
    cfg = own(task, data, tmp_path)
    assert data_problems(cfg) == []
    require_ready(cfg)
    assert not (tmp_path / "work").exists()  # checks leave nothing behind


def note(content: Any) -> Any:
    """The first annotation that is no crowd."""
    return next(each for each in content["annotations"] if not each["iscrowd"])


def size(content: Any) -> list[int]:
    """Height and width of its image."""
    images = {each["id"]: each for each in content["images"]}
    image = images[note(content)["image_id"]]
    return [image["height"], image["width"]]


SPOILT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "no images": (lambda content: content.pop("images"), "images missing or no list"),
    "a list": (lambda content: "a list", "missing or no list"),
    "no file name": (lambda content: content["images"][0].pop("file_name"), "file_name is missing"),
    "two images of one id": (
        lambda content: content["images"].append({**content["images"][0], "file_name": "a.jpg"}),
        "two images have one id",
    ),
    "a box of three": (lambda content: note(content)["bbox"].pop(), "not a list of four"),
    "a box of text": (lambda content: note(content).update(bbox=["a", 1, 2, 3]), "finite numbers"),
    "no area": (lambda content: note(content).pop("area"), "area is missing"),
    "no mask": (lambda content: note(content).pop("segmentation"), "has no mask"),
    "a far corner": (
        lambda content: note(content).update(segmentation=[[0, 0, 1e12, 0, 5, 5]]),
        "images away",
    ),
    "runs that do not fit": (
        lambda content: note(content).update(segmentation={"size": size(content), "counts": [5]}),
        "sum up",
    ),
    "another category": (
        lambda content: content["categories"][0].update(name="other"),
        "which the config's classes name",
    ),
    "another order": (lambda content: content["categories"].reverse(), "in another order"),
    "other images": (
        lambda content: (
            [each.update(file_name="no.jpg") for each in content["images"][:1]]
            and [each.update(file_name=f"no/{i}.jpg") for i, each in enumerate(content["images"])]
        ),
        "none of the images",
    ),
    "nothing annotated": (lambda content: content["annotations"].clear(), "no image is left"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_annotations_that_cannot_be_trained_on_are_named(
    what: str, data: Path, tmp_path: Path
) -> None:
    spoil, words = SPOILT[what]
    found = spoilt(data, tmp_path, spoil)
    assert len(found) == 1, found
    assert words in found[0]
    assert "instances_train2017.json" in found[0]


def test_what_mmdet_bears_stops_nothing(data: Path, tmp_path: Path) -> None:
    """A box without width is dropped, one that reaches out is clipped, a crowd is ignored."""

    def spoil(content: Any) -> None:
        notes = content["annotations"]
        notes[0]["bbox"][2] = 0
        notes[1]["bbox"][0] -= 9
        notes[2].pop("iscrowd")

    assert spoilt(data, tmp_path, spoil) == []


def test_labels_that_are_missing_are_named(data: Path, tmp_path: Path) -> None:
    cfg = own("segmentation", data, tmp_path)
    labels = sorted((tmp_path / "set/annotations/training").iterdir())
    labels[1].unlink()
    (found,) = data_problems(cfg)
    assert "1 of 9 images have no label map" in found and labels[1].name in found


def test_images_of_another_ending_are_found(data: Path, tmp_path: Path) -> None:
    """Training would wait for its first image without end."""
    cfg = own("segmentation", data, tmp_path)
    cfg.train_dataloader.dataset.img_suffix = ".tif"
    (found,) = data_problems(cfg)
    assert "no image ends in .tif (there: 9 .jpg)" in found


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("detection", "model.roi_head.bbox_head.num_classes"),
        ("segmentation", "model.decode_head.num_classes"),
    ],
)
def test_a_head_for_another_number_of_classes_is_found(task: str, key: str) -> None:
    (found,) = class_problems(read(CONFIGS / TASKS[task].config, {key: 77}))
    assert f"{key} is 77" in found.text and "names" in found.text


# ---- work directory, workers, all at once


def test_a_work_directory_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (found,) = work_dir_problems(Config({"work_dir": str(tmp_path / "file/work")}))
    assert "is a file" in found.text
    (found,) = work_dir_problems(Config({"work_dir": "/proc/work"}))
    assert "/proc cannot be written" in found.text
    assert list(work_dir_problems(Config({"work_dir": str(tmp_path / "new/work")}))) == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_workers_that_torch_refuses_are_found() -> None:
    options = {"train_dataloader.num_workers": 0, "train_dataloader.persistent_workers": True}
    cfg = read(CONFIGS / TASKS["detection"].config, options)
    (found,) = loader_problems(cfg)
    assert "persistent_workers option needs num_workers > 0" in found.text


def test_everything_is_reported_at_once(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(data / "ade", root)
    next((root / "annotations/training").iterdir()).unlink()
    (tmp_path / "work").write_text("")
    options = ["train_dataloader.batch_siz=3", "model.decode_head.num_classes=5"]
    options += ["train_dataloader.num_workers=-1"]
    where = ["--data-root", str(root), "--work-dir", str(tmp_path / "work")]
    config = str(CONFIGS / TASKS["segmentation"].config)
    said = refusal(python("train.py", config, *where, "--cfg-options", *options, cwd=tmp_path))
    assert said.startswith("5 things to mend before training:\n1. ")
    for words in (
        "batch_size?",
        "no label map",
        "is 5, but",
        "num_workers option should",
        "is a file",
    ):
        assert words in said


@pytest.mark.parametrize("checks", [True, False])
def test_the_checks_can_be_left_out(
    checks: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--data-root", str(data / "coco"), "--work-dir", str(tmp_path)]
    words += ["--cfg-options", "train_dataloader.batchsize=2", *([] if checks else ["--no-checks"])]
    parser = ArgumentParser()
    parser.set_defaults(config=str(CONFIGS / TASKS["detection"].config), resume=None)
    add_training_flags(parser)
    add_common_flags(parser)
    runner = mock.Mock()
    monkeypatch.setattr(train, "build_runner", runner)
    with pytest.raises(UserError, match="batch_size") if checks else nullcontext():
        train.train(parser.parse_args(words))
    assert runner.called != checks
