"""Data that misbehave during training: broken images and labels, losses that are no numbers."""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.engine import hooks as mmdet_hooks
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose, ConcatDataset, RepeatDataset
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, init_default_scope
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from PIL import Image
from tool_runs import CONFIGS, ROOT, TASKS, logged, output, python, refusal, run
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader
from toy_runs import ToyData, ToyModel, toy_config, toy_run

from mmengine_agent.checkpoints import load_local
from mmengine_agent.data.checked_loading import CheckedLoading, check_loading
from mmengine_agent.errors import BadSample, UserError
from mmengine_agent.hooks.samples import BadSamplesHook, log_of, summary
from mmengine_agent.preflight.keys import unread_keys
from mmengine_agent.resume.newest import newest_whole
from mmengine_agent.run.flags import add_training_flags, set_guards
from mmseg_agent.data.label_maps import require_plain

__all__ = ["mmdet_hooks"]  # hooks that runs name

CLASSES = 3
STEPS = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
Parts = dict[str, Any]


# ---- bad samples


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """An image and its label map, of 0 = ignore and three classes."""
    init_default_scope("mmseg")
    image, label = tmp_path / "images/one.jpg", tmp_path / "labels/one.png"
    image.parent.mkdir()
    label.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(noise).save(image)
    Image.fromarray(np.arange(2400, dtype=np.uint8).reshape(40, 60) % 4).save(label)
    return image, label


def sample_of(image: Path, label: Path) -> Parts:
    paths = {"img_path": str(image), "seg_map_path": str(label)}
    return {**paths, "reduce_zero_label": True, "label_map": None, "seg_fields": []}


def built(steps: list[Parts]) -> list[Any]:
    transforms: list[Any] = Compose(steps).transforms
    return transforms


def test_a_good_sample_is_loaded_as_without_checks(pair: tuple[Path, Path]) -> None:
    plain = Compose(STEPS)(sample_of(*pair))
    found = CheckedLoading(built(STEPS), classes=CLASSES, check_labels=require_plain)(
        sample_of(*pair)
    )
    assert found is not None and found.keys() == plain.keys()
    for key in ("img", "gt_seg_map"):
        np.testing.assert_array_equal(found[key], plain[key])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def as_labels(mode: str) -> Callable[[Path], None]:
    return lambda path: Image.open(path).convert(mode).save(path)


def deep(path: Path) -> None:
    labels = np.asarray(Image.open(path)).astype(np.uint16)
    Image.fromarray(labels + 256).save(path)


def odd(path: Path) -> None:
    labels = np.asarray(Image.open(path)).copy()
    labels[0, 0] = 77
    Image.fromarray(labels).save(path)


# what is broken, how, and what the message must say
BROKEN: dict[str, tuple[int, Callable[[Path], Any], str]] = {
    "a cut image": (0, cut, "truncated"),
    "an empty image": (0, lambda path: path.write_bytes(b""), "the file is empty"),
    "a text as image": (0, lambda path: path.write_text("hello"), "no image can be opened"),
    "no image": (0, Path.unlink, "there is no such file"),
    "a folder as image": (0, lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    "cut labels": (1, cut, "truncated"),
    "no labels": (1, Path.unlink, "there is no such file"),
    "colours as labels": (1, as_labels("RGB"), "3 channels"),
    "deep labels": (1, deep, "values up to 259"),
    "a label of no class": (1, odd, "has 77, but classes are 1..3"),
    "labels of another size": (
        1,
        lambda path: Image.new("L", (9, 8)).save(path),
        "9 x 8, the image 60 x 40",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_bad_sample_names_its_file_and_what_is_wrong(what: str, pair: tuple[Path, Path]) -> None:
    which, spoil, words = BROKEN[what]
    spoil(pair[which])
    with pytest.raises(BadSample) as caught:
        CheckedLoading(built(STEPS), classes=CLASSES, check_labels=require_plain)(sample_of(*pair))
    assert str(pair[which]) in str(caught.value)
    assert words in str(caught.value)


def test_opencv_alone_reads_a_cut_image(pair: tuple[Path, Path]) -> None:
    """Why files are looked at before they are decoded."""
    cut(pair[0])
    assert cv2.imread(str(pair[0])).shape == (40, 60, 3)


def test_an_image_of_another_size_than_its_boxes_is_bad(pair: tuple[Path, Path]) -> None:
    init_default_scope("mmdet")
    sample = {"img_path": str(pair[0]), "instances": [], "height": 60, "width": 40}
    with pytest.raises(BadSample, match="40 x 60 in the annotations, 60 x 40 on disk"):
        CheckedLoading(built(STEPS[:1]))(sample)


def seg_data(root: Path, steps: list[Parts], **more: Any) -> BaseDataset:
    return BaseSegDataset(
        data_root=str(root),
        data_prefix={"img_path": "images", "seg_map_path": "labels"},
        metainfo={"classes": tuple("abc")},
        reduce_zero_label=True,
        pipeline=steps,
        **more,
    )


def loader_of(root: Path, workers: int, log: Path | None, **more: Any) -> DataLoader:
    dataset = seg_data(root, [*STEPS, {"type": "PackSegInputs"}], **more)
    check_loading(dataset, log, CLASSES, require_plain)
    return DataLoader(dataset, num_workers=workers, collate_fn=first)


def copies(pair: tuple[Path, Path], count: int) -> list[tuple[Path, Path]]:
    more = []
    for number in range(count):
        found = [path.with_name(f"{number}{path.suffix}") for path in pair]
        for old, new in zip(pair, found, strict=True):
            shutil.copy(old, new)
        more.append((found[0], found[1]))
    return more


def first(batch: list[Any]) -> Any:
    return batch[0]


def test_workers_leave_bad_samples_out_and_note_them(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    cut(copies(pair, 3)[1][0])
    hook = BadSamplesHook("skip", str(tmp_path))
    loader = loader_of(tmp_path, 2, log_of(str(tmp_path)))
    names = [Path(each["data_samples"].img_path).name for each in loader]
    assert len(names) == 4 and "1.jpg" not in names
    lines = hook._lines(hook.begin)
    assert lines and all(line.startswith(f"{tmp_path}/images/1.jpg\t") for line in lines)
    assert "1 sample (met" in summary(lines) and "truncated" in summary(lines)


def test_a_set_with_nothing_good_ends_with_one_message(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    cut(pair[0])
    loader = loader_of(tmp_path, 0, log_of(str(tmp_path)))
    with pytest.raises(BadSample, match=r"^100 samples in a row cannot be loaded") as caught:
        next(iter(loader))
    assert str(pair[0]) in str(caught.value)


def test_validation_never_leaves_samples_out(pair: tuple[Path, Path], tmp_path: Path) -> None:
    cut(pair[0])
    with pytest.raises(BadSample, match=r"^cannot load"):
        next(iter(loader_of(tmp_path, 0, None, test_mode=True)))


def test_what_a_worker_raises_has_no_traceback_in_its_text() -> None:
    try:
        raise BadSample("cannot load one.jpg:\nit is cut")
    except BadSample:
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")  # as torch hands it over
    with pytest.raises(BadSample) as caught:
        wrapped.reraise()
    assert str(caught.value) == "cannot load one.jpg:\nit is cut"


def flags(*arguments: str) -> Any:
    parser = argparse.ArgumentParser()
    add_training_flags(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize("task", TASKS)
def test_the_policy_of_a_dumped_config_is_replaced(task: str) -> None:
    """And nothing else is in it that another tool could stumble over."""
    once = Config.fromfile(CONFIGS / TASKS[task].config)
    once.work_dir = "somewhere"
    before = once.to_dict()
    set_guards(once, flags())
    again = Config(once.to_dict())
    set_guards(again, flags("--on-bad-sample=skip", "--nan=skip", "--nan-limit=3"))
    assert [hook["type"] for hook in again.custom_hooks] == ["BadLossesHook", "BadSamplesHook"]
    assert (again.custom_hooks[0].policy, again.custom_hooks[0].limit) == ("skip", 3)
    assert again.custom_hooks[1].policy == "skip"
    assert {**again.to_dict(), "custom_hooks": []} == {**before, "custom_hooks": []}


@pytest.mark.parametrize("wrapped", [ConcatDataset, RepeatDataset])
def test_each_step_that_loads_is_checked_once(
    wrapped: Any, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Also in a set of sets, and where labels are loaded later, as for validation."""
    dataset = seg_data(tmp_path, [STEPS[0], {"type": "RandomFlip", "prob": 0.5}, STEPS[1]])
    outer = wrapped([dataset]) if wrapped is ConcatDataset else wrapped(dataset, 2)
    for _ in range(2):
        check_loading(outer, None, CLASSES, require_plain)
    names = [type(step).__name__ for step in dataset.pipeline.transforms]
    assert names == ["CheckedLoading", "RandomFlip", "CheckedLoading"]
    later = dataset.pipeline.transforms[2]
    assert [type(step).__name__ for step in later.steps] == ["LoadAnnotations"]


# ---- bad losses

STOP = {"type": "BadLossesHook", "policy": "stop"}
SKIP = {"type": "BadLossesHook", "policy": "skip"}
ACCUMULATE = "optim_wrapper.accumulative_counts"


def same(one: Parts, other: Parts) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_bad_losses_stop_and_save_what_was_before(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        toy_run(tmp_path / "bad", STOP, bad=(7,))
    said = str(caught.value)
    saved = tmp_path / "bad/interrupted.pth"
    for words in ("iteration 4:", "loss_fit nan", "photos/6.jpg", "photos/7.jpg", str(saved)):
        assert words in said
    assert "photos/5.jpg" not in said
    alone = toy_run(tmp_path / "short", STOP, without=(6, 7, 8, 9, 10, 11))
    checkpoint = load_local(str(saved))
    assert same(checkpoint["state_dict"], alone.model.state_dict())
    assert checkpoint["meta"]["iter"] == 3 and "optimizer" in checkpoint


def going_on(folder: Path, *hooks: Parts, options: Parts, **data: Any) -> Any:
    """Train from what ``--resume`` finds in a work directory."""
    cfg = toy_config(folder, *hooks, options=options, **data)
    cfg.resume, cfg.load_from = True, str(newest_whole(cfg, print))
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize("counts", [1, 2, 3])
def test_a_run_that_stopped_goes_on_as_if_nothing_had_been(counts: int, tmp_path: Path) -> None:
    """With gradients that wait for their step, and with averages; the image is mended between."""
    average = {"type": "EMAHook", "momentum": 0.2}
    options = {ACCUMULATE: counts}
    whole = toy_run(tmp_path / "whole", STOP, average, options=options)
    with pytest.raises(UserError, match=r"interrupted\.pth"):
        toy_run(tmp_path / "bad", STOP, average, options=options, bad=(9,))
    resumed = going_on(tmp_path / "bad", STOP, average, options=options)
    assert same(resumed.model.state_dict(), whole.model.state_dict())
    kept = [load_local(f"{tmp_path}/{name}/epoch_1.pth") for name in ("whole", "bad")]
    assert same(kept[0]["ema_state_dict"], kept[1]["ema_state_dict"])
    assert not (tmp_path / "bad/interrupted.pth").exists()


def test_without_a_hook_that_saves_the_losses_are_told_all_the_same(tmp_path: Path) -> None:
    options = {"default_hooks.checkpoint": None}
    with pytest.raises(UserError, match=r"photos/7.jpg\nNothing was saved: the config"):
        toy_run(tmp_path, STOP, options=options, bad=(7,))


@pytest.mark.parametrize("hook", [STOP, SKIP], ids=lambda hook: hook["policy"])
def test_weights_that_are_spoilt_are_not_saved(hook: Parts, tmp_path: Path) -> None:
    """No batch can be left out then: all that come are bad."""
    options = {"optim_wrapper.optimizer.lr": float("inf")}
    with pytest.raises(UserError, match=r"iteration 2: .*(?s:.*)weights are NaN or infinite too"):
        toy_run(tmp_path, hook, options=options)
    assert not list(tmp_path.glob("*.pth"))


def test_leaving_a_batch_out_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    skipped = toy_run(tmp_path / "bad", SKIP, bad=(7,))
    without = toy_run(tmp_path / "without", STOP, without=(6, 7))
    assert same(skipped.model.state_dict(), without.model.state_dict())
    log = next((tmp_path / "bad").glob("*/*.log")).read_text()
    assert "photos/7.jpg" in log and "1 batches were left out" in log
    losses = [each["loss"] for each in logged(tmp_path / "bad")]
    assert len(losses) == 6 and np.isfinite(losses).all()


@pytest.mark.parametrize("bad", [(2,), (4,), (10,), (0, 2, 4)], ids=str)
def test_a_bad_batch_adds_nothing_to_accumulated_gradients(
    bad: tuple[int, ...], tmp_path: Path
) -> None:
    """And steps stay in time: one after three iterations, whatever was left out of them."""
    runner = toy_run(tmp_path, SKIP, options={ACCUMULATE: 3}, bad=bad)
    model, data = ToyModel(), ToyData()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for first in (0, 6):
        for number in range(first, first + 6, 2):
            if number not in bad:
                inputs = [data[number]["inputs"], data[number + 1]["inputs"]]
                (sum(model(inputs, None).values()) / 3).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert same(runner.model.state_dict(), model.state_dict())


def scaled_run(folder: Path, scale: float, **data: Any) -> Runner:
    """Half precision's loss scaling on the CPU, where mmengine's own asks for a GPU."""
    options = {"optim_wrapper.type": "ScaledOptimWrapper", "optim_wrapper.scale": scale}
    return toy_run(folder, SKIP, options=options, **data)


@OPTIM_WRAPPERS.register_module()
class ScaledOptimWrapper(AmpOptimWrapper):
    """``AmpOptimWrapper`` with what it refuses to make on the CPU."""

    def __init__(self, scale: float, **arguments: Any) -> None:
        OptimWrapper.__init__(self, **arguments)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        self.cast_dtype = torch.bfloat16


def test_gradients_that_overflow_are_left_to_the_loss_scaler(tmp_path: Path) -> None:
    runner = scaled_run(tmp_path, 2.0**127)
    assert runner.optim_wrapper.loss_scaler.get_scale() < 2.0**127
    assert "bad_losses" not in runner.message_hub.runtime_info


def test_the_loss_scale_does_not_fall_for_bad_losses(tmp_path: Path) -> None:
    runner = scaled_run(tmp_path, 1024.0, bad=(2, 7))
    assert runner.optim_wrapper.loss_scaler.get_scale() == 1024
    assert runner.message_hub.get_info("bad_losses") == 2
    assert all(torch.isfinite(each).all() for each in runner.model.state_dict().values())


def test_another_check_of_losses_does_not_mind(tmp_path: Path) -> None:
    """mmdet's, which many of its configs have."""
    other = {"type": "mmdet.CheckInvalidLossHook", "interval": 1}
    toy_run(tmp_path / "skip", SKIP, other, bad=(7,))
    with pytest.raises(UserError, match="iteration 4"):
        toy_run(tmp_path / "stop", STOP, other, bad=(7,))


def test_too_many_bad_batches_stop_the_run_also_when_it_goes_on(tmp_path: Path) -> None:
    for run_on in (toy_run, going_on):
        with pytest.raises(UserError, match="--nan-limit is 1") as caught:
            run_on(tmp_path, {**SKIP, "limit": 1}, options={}, bad=(3, 8))
        assert "iteration 5:" in str(caught.value) and "photos/8.jpg" in str(caught.value)
    runner = going_on(tmp_path, {**SKIP, "limit": 2}, options={}, bad=(3, 8))
    assert runner.message_hub.get_info("bad_losses") == 2


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_processes_decide_together(policy: str, tmp_path: Path) -> None:
    """The batch that is left out is the one after which gradients would be averaged."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    program = [str(ROOT / "tests/toy_runs.py"), str(tmp_path), "7", policy, "2"]
    done = run(sys.executable, *launch, *program, cwd=tmp_path)
    # samples go to the processes in turn: number 7 comes to process 1, in its second batch
    if policy == "skip":
        output(done)
        one, other = (torch.load(tmp_path / f"weights.{rank}.pt") for rank in (0, 1))
        assert torch.equal(one["layer.weight"], other["layer.weight"])
        assert all(torch.isfinite(each).all() for each in other.values())
        return
    assert done.returncode != 0
    said = done.stderr.partition("error in process 0 of 2: ")[2].partition("Look at these")[0]
    assert "iteration 2:" in said and "process 1: " in said and "process 0" not in said
    assert "photos/7.jpg" in said and (tmp_path / "interrupted.pth").is_file()
    assert "Traceback" not in said


# ---- as users meet them


def train_spoilt(task: str, data: Path, folder: Path, policy: str) -> Any:
    """Train on a set with one image cut short."""
    shutil.copytree(data / TASKS[task].data, folder / "set")
    cut(next(path for path in sorted((folder / "set").rglob("*.jpg")) if "train" in str(path)))
    where = ["--data-root", str(folder / "set"), "--work-dir", str(folder / "work")]
    settings = [*TASKS[task].two, "train_dataloader.batch_size=9", "val_dataloader=None"]
    settings += ["val_cfg=None", "val_evaluator=None"]
    config = str(CONFIGS / TASKS[task].config)
    more = [f"--on-bad-sample={policy}", "--cfg-options", *settings]
    return python("train.py", config, *where, *more, cwd=folder)


def test_training_stops_at_a_bad_image_and_names_it(data: Path, tmp_path: Path) -> None:
    said = refusal(train_spoilt("segmentation", data, tmp_path, "error"))
    assert "truncated" in said and ".jpg" in said and "--on-bad-sample=skip" in said


def test_training_goes_on_without_a_bad_image_and_reports_it(data: Path, tmp_path: Path) -> None:
    said = output(train_spoilt("detection", data, tmp_path, "skip"))
    assert "bad samples: 1 sample (met" in said and "truncated" in said
    assert (tmp_path / "work/epoch_1.pth").is_file()
    again = Config.fromfile(tmp_path / "work" / Path(TASKS["detection"].config).name)
    assert list(unread_keys(again, {})) == []  # what a run writes can be trained with again
