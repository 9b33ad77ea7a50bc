"""Broken images and labels during training: named at once, or left out and reported."""

import argparse
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmdet.engine import hooks as mmdet_hooks
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose, ConcatDataset, RepeatDataset
from mmengine.registry import init_default_scope
from mmseg.datasets import BaseSegDataset
from PIL import Image
from tool_runs import CONFIGS, TASKS, output, python, refusal
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from mmengine_agent.data.checked_loading import CheckedPipeline, check_loading
from mmengine_agent.errors import BadSample
from mmengine_agent.hooks.samples import BadSamplesHook, summary
from mmengine_agent.preflight.keys import unread_keys
from mmengine_agent.run.flags import add_training_flags, set_guards
from mmseg_agent.data.label_maps import require_label

__all__ = ["mmdet_hooks"]  # hooks that runs name

CLASSES = tuple("abc")
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
    found = CheckedPipeline(built(STEPS), check_label=partial(require_label, CLASSES))(
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


def with_unknown_class(path: Path) -> None:
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
    "a label of no class": (1, with_unknown_class, "has 77, but classes are 1..3"),
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
        CheckedPipeline(built(STEPS), check_label=partial(require_label, CLASSES))(sample_of(*pair))
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
        CheckedPipeline(built(STEPS[:1]))(sample)


def seg_data(root: Path, steps: list[Parts], **more: Any) -> BaseDataset:
    return BaseSegDataset(
        data_root=str(root),
        data_prefix={"img_path": "images", "seg_map_path": "labels"},
        metainfo={"classes": CLASSES},
        reduce_zero_label=True,
        pipeline=steps,
        **more,
    )


def loader_of(root: Path, workers: int, log: Path | None, **more: Any) -> DataLoader:
    dataset = seg_data(root, [*STEPS, {"type": "PackSegInputs"}], **more)
    check_loading(dataset, log, partial(require_label, CLASSES))
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
    loader = loader_of(tmp_path, 2, tmp_path / "bad_samples.0.txt")
    names = [Path(each["data_samples"].img_path).name for each in loader]
    assert len(names) == 4 and "1.jpg" not in names
    lines = hook._lines()
    assert lines and all(line.startswith(f"{tmp_path}/images/1.jpg\t") for line in lines)
    assert "1 samples (met" in summary(lines) and "truncated" in summary(lines)


def test_a_set_with_nothing_good_ends_with_one_message(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    cut(pair[0])
    loader = loader_of(tmp_path, 0, tmp_path / "bad_samples.0.txt")
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
def test_each_set_is_checked_once(wrapped: Any, pair: tuple[Path, Path], tmp_path: Path) -> None:
    """Also in a set of sets."""
    dataset = seg_data(tmp_path, [STEPS[0], {"type": "RandomFlip", "prob": 0.5}, STEPS[1]])
    outer = wrapped([dataset]) if wrapped is ConcatDataset else wrapped(dataset, 2)
    for _ in range(2):
        check_loading(outer, None, partial(require_label, CLASSES))
    assert type(dataset.pipeline) is CheckedPipeline
    names = [type(step).__name__ for step in dataset.pipeline.transforms]
    assert names == ["LoadImageFromFile", "RandomFlip", "LoadAnnotations"]


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
    text = refusal(train_spoilt("segmentation", data, tmp_path, "error"))
    assert "truncated" in text and ".jpg" in text and "--on-bad-sample=skip" in text


def test_training_goes_on_without_a_bad_image_and_reports_it(data: Path, tmp_path: Path) -> None:
    text = output(train_spoilt("detection", data, tmp_path, "skip"))
    assert "bad samples: 1 samples (met" in text and "truncated" in text
    assert (tmp_path / "work/epoch_1.pth").is_file()
    again = Config.fromfile(tmp_path / "work" / Path(TASKS["detection"].config).name)
    assert list(unread_keys(again, {})) == []  # what a run writes can be trained with again
