"""A user's own COCO-like data: one folder moves every loader, evaluator and head."""

from pathlib import Path

import pytest
from mmengine.registry import DATASETS, init_default_scope
from own_data import (
    ADE,
    ADE_DEMO,
    CATEGORIES,
    COCO,
    COCO_DEMO,
    LOADERS,
    NAMES,
    build_dataset,
    counts,
    fruit_set,
    load,
    message,
    parse,
    plain,
    write_coco,
)

from mmengine_agent.data.user_data import DataFlags, point_at


@pytest.fixture
def fruit(tmp_path: Path) -> DataFlags:
    return fruit_set(tmp_path)


# ---- flags ----


def test_flags_that_are_not_given_are_false_and_one_is_enough() -> None:
    assert not parse()
    assert parse("--data-root", "data")
    assert parse("--classes", "a")


def test_every_flag_arrives_in_its_place() -> None:
    root = ("--data-root", "r")
    train = ("--train-ann", "ta", "--train-images", "ti")
    val = ("--val-ann", "va", "--val-images", "vi")
    assert parse(*root, *train, *val) == DataFlags("r", "ta", "va", "ti", "vi", None)


def test_classes_are_names_or_a_file_of_names(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("traffic light\n\n  road\n")
    assert parse("--classes", str(file)).classes == ("traffic light", "road")
    assert parse("--classes", "road", "sky").classes == ("road", "sky")
    assert parse("--classes", "road").classes == ("road",)


def test_a_file_of_names_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = str(tmp_path / "names.txt")
    assert missing in message(parse, "--classes", missing)


@pytest.mark.parametrize("path", [COCO, COCO_DEMO, ADE, ADE_DEMO], ids=lambda path: path.stem)
def test_empty_flags_change_nothing(path: Path) -> None:
    cfg = load(path)
    before = plain(cfg)
    assert point_at(cfg, DataFlags()) is None
    assert plain(cfg) == before


def test_empty_flags_leave_even_other_annotations_alone(fruit: DataFlags) -> None:
    cfg = load(COCO)
    there = {"data_root": fruit.root, "ann_file": "check.json"}
    for loader in LOADERS:
        cfg[loader].dataset.update(there)
    before = plain(cfg)
    assert point_at(cfg, DataFlags()) is None
    assert plain(cfg) == before


# ---- COCO-like data ----


@pytest.mark.parametrize("path", [COCO, COCO_DEMO], ids=lambda path: path.stem)
def test_coco_flags_move_all_loaders_and_evaluators(path: Path, fruit: DataFlags) -> None:
    cfg = load(path)
    point_at(cfg, fruit)
    datasets = [cfg[loader].dataset for loader in LOADERS]
    assert [dataset.data_root for dataset in datasets] == [fruit.root] * 3
    assert [d.ann_file for d in datasets] == ["learn.json", "check.json", "check.json"]
    assert [d.data_prefix.to_dict() for d in datasets] == [
        {"img": "learn"},
        {"img": "check"},
        {"img": "check"},
    ]
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        assert Path(evaluator.ann_file) == Path(str(fruit.root), "check.json")


def test_a_root_alone_keeps_the_names_below_it(tmp_path: Path) -> None:
    cfg = load(COCO)
    assert point_at(cfg, DataFlags(root=str(tmp_path))) is None
    before = load(COCO)
    for loader in LOADERS:
        found, was = cfg[loader].dataset, before[loader].dataset
        assert found.data_root == str(tmp_path)
        assert (found.ann_file, found.data_prefix) == (was.ann_file, was.data_prefix)
    ann_file = tmp_path / "annotations/instances_val2017.json"
    assert Path(cfg.val_evaluator.ann_file) == ann_file


def test_names_below_the_root_move_alone_too(fruit: DataFlags) -> None:
    cfg = load(COCO)
    cfg.merge_from_dict({f"{loader}.dataset.data_root": fruit.root for loader in LOADERS})
    assert point_at(cfg, DataFlags(val_ann="check.json")) == NAMES
    assert cfg.train_dataloader.dataset.ann_file == load(COCO).train_dataloader.dataset.ann_file
    assert Path(cfg.test_evaluator.ann_file) == Path(str(fruit.root), "check.json")


def test_each_evaluator_of_a_list_moves(fruit: DataFlags) -> None:
    cfg = load(COCO)
    cfg.test_evaluator = [cfg.test_evaluator, {"type": "DumpDetResults", "out_file_path": "a.pkl"}]
    point_at(cfg, fruit)
    assert Path(cfg.test_evaluator[0].ann_file) == Path(str(fruit.root), "check.json")
    assert "ann_file" not in cfg.test_evaluator[1]


def test_coco_class_names_come_from_the_annotations(fruit: DataFlags) -> None:
    cfg = load(COCO)
    names = point_at(cfg, fruit)
    assert names is not None
    assert sorted(names) == sorted(NAMES)
    for loader in LOADERS:
        assert list(cfg[loader].dataset.metainfo["classes"]) == names


@pytest.mark.parametrize("loader", LOADERS)
def test_a_label_bears_the_name_of_its_category(loader: str, fruit: DataFlags) -> None:
    cfg = load(COCO)
    point_at(cfg, fruit)
    dataset = build_dataset(cfg, loader)
    assert len(dataset) == len(CATEGORIES)
    for item in dataset:
        name = Path(item["data_samples"].img_path).stem  # each picture is named after its object
        (label,) = item["data_samples"].gt_instances.labels.tolist()
        assert dataset.metainfo["classes"][label] == name


def test_training_and_validation_must_number_the_classes_alike(
    tmp_path: Path, fruit: DataFlags
) -> None:
    # mmdet numbers labels by the order in each file: here pears would be learnt, apples looked for
    write_coco(tmp_path / "check.json", [CATEGORIES[i] for i in (1, 0, 2)], "check")
    text = message(point_at, load(COCO), fruit)
    assert str(tmp_path / "learn.json") in text
    assert str(tmp_path / "check.json") in text


def test_a_class_that_the_annotations_lack_is_named(fruit: DataFlags) -> None:
    flags = DataFlags(**{**vars(fruit), "classes": ("pear", "plum")})
    assert "plum" in message(point_at, load(COCO), flags)


def test_classes_given_for_coco_choose_among_the_annotated(fruit: DataFlags) -> None:
    cfg = load(COCO)
    flags = DataFlags(**{**vars(fruit), "classes": ("fig", "pear")})
    names = point_at(cfg, flags)
    assert names is not None
    assert sorted(names) == ["fig", "pear"]
    assert set(counts(cfg.model)) == {2}
    dataset = build_dataset(cfg, "train_dataloader")
    for item in dataset:
        (label,) = item["data_samples"].gt_instances.labels.tolist()
        assert dataset.metainfo["classes"][label] == Path(item["data_samples"].img_path).stem


def test_training_annotations_name_the_classes_where_there_are_no_others(tmp_path: Path) -> None:
    write_coco(tmp_path / "learn.json", CATEGORIES)
    flags = DataFlags(str(tmp_path), "learn.json", "nowhere.json", "pictures", "pictures")
    assert point_at(load(COCO), flags) == NAMES


@pytest.mark.parametrize("path", [COCO, COCO_DEMO], ids=lambda path: path.stem)
def test_num_classes_changes_in_all_heads(path: Path, fruit: DataFlags) -> None:
    cfg = load(path)
    before = counts(cfg.model)
    assert point_at(cfg, fruit) is not None
    assert len(before) == 2  # box head and mask head
    assert counts(cfg.model) == [3, 3]


def test_num_classes_changes_in_a_cascade_and_in_auxiliary_heads(fruit: DataFlags) -> None:
    cfg = load(COCO)
    cfg.model.roi_head.bbox_head = [{"type": "Shared2FCBBoxHead", "num_classes": 80}] * 3
    cfg.model.bbox_head = {"type": "RetinaHead", "num_classes": 80}
    cfg.model.auxiliary_head = [{"type": "FCNHead", "num_classes": 80}]
    point_at(cfg, fruit)
    assert counts(cfg.model) == [3] * 6
    assert "num_classes" not in cfg.model.backbone


@pytest.mark.parametrize("path", [COCO, COCO_DEMO], ids=lambda path: path.stem)
def test_categories_that_are_the_configs_own_change_no_class(path: Path, tmp_path: Path) -> None:
    cfg = load(path)
    init_default_scope("mmdet")
    dataset = cfg.train_dataloader.dataset
    own = dataset.get("metainfo") or DATASETS.get(f"mmdet.{dataset.type}").METAINFO
    write_coco(tmp_path / "learn.json", list(enumerate(own["classes"], 5)))
    write_coco(tmp_path / "check.json", list(enumerate(own["classes"], 5)))
    flags = DataFlags(str(tmp_path), "learn.json", "check.json", "pictures", "pictures")
    assert point_at(cfg, flags) is None
    before = load(path)
    assert cfg.model == before.model
    for loader in LOADERS:
        assert cfg[loader].dataset.get("metainfo") == before[loader].dataset.get("metainfo")


@pytest.mark.parametrize(
    "content",
    [
        "{broken",
        "[]",
        "{}",
        '{"categories": [{"name": "pear"}]}',
        '{"categories": [{"id": 1}]}',
        '{"categories": {"id": 1}}',
        b"\xff\xfe\x00",
    ],
    ids=["syntax", "list", "no-categories", "no-id", "no-name", "no-list", "binary"],
)
def test_a_broken_annotation_file_is_named(
    content: str | bytes, tmp_path: Path, fruit: DataFlags
) -> None:
    path = tmp_path / "check.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert str(path) in message(point_at, load(COCO), fruit)
