"""A user's own data: one folder moves every loader, evaluator and head; gaps are named."""

import copy
import functools
import json
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, init_default_scope

from mmengine_agent.data.user_data import DataFlags, point_at, require_data
from mmengine_agent.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"
COCO = CONFIGS / "agent_pvt_maskrcnn.py"
COCO_DEMO = CONFIGS / "demo/agent_pvt_maskrcnn_demo.py"
ADE = CONFIGS / "agent_pvt_semantic_fpn.py"
ADE_DEMO = CONFIGS / "demo/agent_pvt_semantic_fpn_demo.py"
SPLITS = ("train", "val", "test")
LOADERS = [f"{split}_dataloader" for split in SPLITS]
SIZE = 40
# neither sorted nor from 0 or 1, as annotation tools write them
CATEGORIES = [(7, "pear"), (3, "apple"), (90, "fig")]
NAMES = ["pear", "apple", "fig"]
EMPTY = ((), (), ())


@pytest.fixture(autouse=True)
def own_scope() -> Iterator[None]:
    """Leave no default scope behind."""
    yield
    DefaultScope._instance_dict.clear()


def save_picture(path: Path, pixels: np.ndarray) -> None:
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def picture() -> np.ndarray:
    return np.full((SIZE, SIZE, 3), 128, np.uint8)


def write_coco(
    path: Path, categories: Sequence[tuple[int, str]], images: str = "pictures"
) -> dict[str, Any]:
    """An annotation file with an image of one square for every category, and the images."""
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    for number, (category, name) in enumerate(categories, 1):
        save_picture(path.parent / images / f"{name}.jpg", picture())
        size = {"width": SIZE, "height": SIZE}
        content["images"].append({"id": number, "file_name": f"{name}.jpg", **size})
        square = {"bbox": [4, 4, 20, 20], "area": 400, "segmentation": [[4, 4, 24, 4, 24, 24]]}
        what = {"id": number, "image_id": number, "category_id": category, "iscrowd": 0}
        content["annotations"].append({**what, **square})
    path.write_text(json.dumps(content))
    return content


@pytest.fixture
def fruit(tmp_path: Path) -> DataFlags:
    """A COCO-like data set under names of its own."""
    write_coco(tmp_path / "learn.json", CATEGORIES, "learn")
    write_coco(tmp_path / "check.json", CATEGORIES, "check")
    return DataFlags(str(tmp_path), "learn.json", "check.json", "learn", "check")


@pytest.fixture
def scenes(tmp_path: Path) -> DataFlags:
    """An ADE20K-like data set with PNG pictures; label 0 is void, 1 is road, 2 is sky."""
    # stripes so thin that no random crop misses a label
    labels = (np.arange(SIZE, dtype=np.uint8) % 3)[:, None].repeat(SIZE, axis=1)
    for part in ("learn", "check"):
        save_picture(tmp_path / part / "pictures/a.png", picture())
        save_picture(tmp_path / part / "labels/a.png", labels)
    (tmp_path / "names.txt").write_text("road\n\n sky \n")
    return DataFlags(
        str(tmp_path),
        train_ann="learn/labels",
        val_ann="check/labels",
        train_images="learn/pictures",
        val_images="check/pictures",
        classes=("road", "sky"),
    )


@functools.cache
def read(path: Path) -> Config:
    return Config.fromfile(path)


def load(path: Path) -> Config:
    """A config of its own for each caller."""
    return copy.deepcopy(read(path))


def plain(cfg: Config) -> dict[str, Any]:
    return cfg._cfg_dict.to_dict()


def counts(node: Any) -> list[int]:
    """Every num_classes of a config, wherever it is."""
    if isinstance(node, dict):
        own = [node["num_classes"]] if "num_classes" in node else []
        return own + [n for child in node.values() for n in counts(child)]
    return [n for child in node for n in counts(child)] if isinstance(node, list) else []


def build_dataset(cfg: Config, loader: str) -> Any:
    """The dataset of a loader, read from its files."""
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg[loader].dataset)
    dataset.full_init()
    return dataset


def parse(*flags: str) -> DataFlags:
    """The data flags of a command line."""
    parser = ArgumentParser()
    DataFlags.add_to(parser)
    return DataFlags.of(parser.parse_args(flags))


def message(call: Any, *arguments: Any) -> str:
    """What the UserError of a call says."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    return str(error.value)


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
    said = message(point_at, load(COCO), fruit)
    assert str(tmp_path / "learn.json") in said
    assert str(tmp_path / "check.json") in said


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
    said = message(require_data, cfg, "train", "val")
    looked_for, layout = said.split("layout", 1)
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
