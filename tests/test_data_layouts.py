"""A user's own ADE20K-like data, sets within wrappers, and messages about what is missing."""

from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from own_data import (
    ADE,
    ADE_DEMO,
    COCO,
    LOADERS,
    SPLITS,
    build_dataset,
    counts,
    fruit_set,
    load,
    message,
    parse,
    picture,
    save_picture,
    scenes_set,
)

from mmengine_agent.data.user_data import DataFlags, point_at, require_data


@pytest.fixture
def fruit(tmp_path: Path) -> DataFlags:
    return fruit_set(tmp_path)


@pytest.fixture
def scenes(tmp_path: Path) -> DataFlags:
    return scenes_set(tmp_path)


# ---- ADE20K-like data ----


@pytest.mark.parametrize("path", [ADE, ADE_DEMO], ids=lambda path: path.stem)
def test_ade_flags_move_all_loaders(path: Path, scenes: DataFlags) -> None:
    cfg = load(path)
    assert point_at(cfg, scenes) == ["road", "sky"]
    for loader, part in zip(LOADERS, ("learn", "check", "check"), strict=True):
        dataset = cfg[loader].dataset
        assert dataset.data_root == scenes.root
        assert dataset.data_prefix.to_dict() == {
            "img_path": f"{part}/pictures",
            "seg_map_path": f"{part}/labels",
        }
    assert counts(cfg.model) == [2]


@pytest.mark.parametrize("path", [ADE, ADE_DEMO], ids=lambda path: path.stem)
@pytest.mark.parametrize("loader", LOADERS)
def test_ade_like_png_pictures_are_read_and_label_zero_is_ignored(
    path: Path, loader: str, scenes: DataFlags
) -> None:
    cfg = load(path)
    point_at(cfg, scenes)
    dataset = build_dataset(cfg, loader)
    assert len(dataset) == 1
    assert tuple(dataset.metainfo["classes"]) == ("road", "sky")
    labels = dataset[0]["data_samples"].gt_sem_seg.data
    assert set(labels.unique().tolist()) == {0, 1, 255}


def test_jpeg_pictures_are_read_beside_a_class_file(tmp_path: Path, scenes: DataFlags) -> None:
    (tmp_path / "check/pictures/a.png").unlink()
    save_picture(tmp_path / "check/pictures/a.jpeg", picture())
    cfg = load(ADE)
    classes = parse("--classes", str(tmp_path / "names.txt")).classes
    point_at(cfg, DataFlags(**{**vars(scenes), "classes": classes}))
    assert len(build_dataset(cfg, "train_dataloader")) == 1
    assert len(build_dataset(cfg, "val_dataloader")) == 1


def test_an_ade_root_alone_keeps_the_150_classes(tmp_path: Path) -> None:
    cfg = load(ADE)
    assert point_at(cfg, DataFlags(root=str(tmp_path))) is None
    assert cfg.model == load(ADE).model
    for loader in LOADERS:
        assert cfg[loader].dataset.type == "ADE20KDataset"
        assert cfg[loader].dataset.data_root == str(tmp_path)
        assert cfg[loader].dataset.data_prefix == load(ADE)[loader].dataset.data_prefix


# ---- wrappers ----


def wrap(cfg: Config, kind: str) -> list[Any]:
    """Put the training set into a wrapper; what is then inside."""
    dataset = cfg.train_dataloader.dataset
    if kind == "RepeatDataset":
        cfg.train_dataloader.dataset = {"type": kind, "times": 2, "dataset": dataset}
        return [cfg.train_dataloader.dataset.dataset]
    if kind == "ConcatDataset":
        both = [dataset, dataset.copy()]
        cfg.train_dataloader.dataset = {"type": kind, "datasets": both}
        return list(cfg.train_dataloader.dataset.datasets)
    both = [dataset, dataset.copy()]
    inner = {"type": "ConcatDataset", "datasets": both}
    cfg.train_dataloader.dataset = {"type": "RepeatDataset", "times": 2, "dataset": inner}
    return list(cfg.train_dataloader.dataset.dataset.datasets)


WRAPPERS = ["RepeatDataset", "ConcatDataset", "both"]


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapped_coco_set_moves(kind: str, fruit: DataFlags) -> None:
    cfg = load(COCO)
    inside = wrap(cfg, kind)
    names = point_at(cfg, fruit)
    for dataset in inside:
        assert (dataset.data_root, dataset.ann_file) == (fruit.root, "learn.json")
        assert list(dataset.metainfo["classes"]) == names
    assert "data_root" not in cfg.train_dataloader.dataset
    assert "metainfo" not in cfg.train_dataloader.dataset


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapped_ade_set_moves(kind: str, scenes: DataFlags) -> None:
    cfg = load(ADE)
    inside = wrap(cfg, kind)
    point_at(cfg, scenes)
    for dataset in inside:
        assert dataset.type == "NamedSegDataset"
        assert dataset.data_root == scenes.root
        assert dataset.img_suffix == ".png"
    wrapper = "RepeatDataset" if kind == "both" else kind
    assert cfg.train_dataloader.dataset.type == wrapper


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapped_set_that_is_missing_is_named(kind: str, tmp_path: Path) -> None:
    cfg = load(COCO)
    wrap(cfg, kind)
    point_at(cfg, DataFlags(root=str(tmp_path)))
    path = tmp_path / "annotations/instances_train2017.json"
    assert str(path) in message(require_data, cfg, "train")


# ---- what is missing ----


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (
            COCO,
            [
                "annotations/instances_train2017.json",
                "train2017",
                "annotations/instances_val2017.json",
                "val2017",
            ],
        ),
        (
            ADE,
            [
                "images/training",
                "annotations/training",
                "images/validation",
                "annotations/validation",
            ],
        ),
    ],
    ids=["coco", "ade"],
)
def test_every_missing_path_is_named_with_the_layout_and_a_way_out(
    path: Path, wanted: list[str], tmp_path: Path
) -> None:
    cfg = load(path)
    point_at(cfg, DataFlags(root=str(tmp_path)))
    text = message(require_data, cfg, "train", "val")
    looked_for, layout = text.split("layout", 1)
    for name in wanted:
        assert looked_for.count(str(tmp_path / name)) == 1
        assert Path(name).name in layout
    assert str(tmp_path) in layout
    assert str(Path.cwd()) in looked_for
    assert "--data-root" in layout
    assert "make demo" in layout
    assert "tools/make_demo_data.py" in layout


def test_only_what_is_missing_is_named(tmp_path: Path) -> None:
    cfg = load(COCO)
    point_at(cfg, DataFlags(root=str(tmp_path)))
    (tmp_path / "train2017").mkdir()
    looked_for = message(require_data, cfg, "train").split("layout", 1)[0]
    assert str(tmp_path / "annotations/instances_train2017.json") in looked_for
    assert str(tmp_path / "train2017") not in looked_for
    assert "val2017" not in looked_for


def test_only_the_splits_asked_for_are_required(fruit: DataFlags) -> None:
    cfg = load(COCO)
    point_at(cfg, DataFlags(**{**vars(fruit), "train_ann": "nowhere.json"}))
    require_data(cfg, "val", "test")
    assert "nowhere.json" in message(require_data, cfg, "train")


def test_data_that_are_there_need_no_words(
    fruit: DataFlags, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = load(COCO)
    point_at(cfg, fruit)
    require_data(cfg, *SPLITS)
    assert capsys.readouterr() == ("", "")


def test_ade_like_data_that_are_there_need_no_words(scenes: DataFlags) -> None:
    cfg = load(ADE)
    point_at(cfg, scenes)
    require_data(cfg, *SPLITS)


def test_a_root_that_is_no_path_is_refused() -> None:
    cfg = load(ADE)
    cfg.val_dataloader.dataset.data_root = 1
    said = message(point_at, cfg, DataFlags())
    assert said == "val_dataloader.dataset.data_root must be a path, got 1"
