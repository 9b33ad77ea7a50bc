"""The demo data set: its two formats agree, it is reproducible, and it never harms a folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import demo_scenes as scenes
import make_demo_data as tool
import numpy as np
import pytest
from pycocotools.coco import COCO

# pycocotools 2.0 passes NumPy 2 an argument that NumPy asks its callers to update
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SPLITS = {"train": ("training", 6), "val": ("validation", 4)}
SHAPES = ["ellipse", "rectangle", "triangle", "star", "cross"]
SIZE = 96


def make(out: Path, *more: str) -> int:
    """Run the command line for a small set; returns its exit status."""
    return tool.main([str(out), "--train", "6", "--val", "4", "--size", str(SIZE), *more])


def files(folder: Path) -> dict[str, bytes]:
    """The content of every file below folder, by its relative path."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated set, for tests that only read it."""
    out = tmp_path_factory.mktemp("parent") / "demo"
    assert make(out) == 0
    return out


@pytest.fixture(params=SPLITS)
def split(request: pytest.FixtureRequest) -> str:
    """COCO's name of each split."""
    return str(request.param)


def read_coco(demo: Path, split: str) -> COCO:
    """A split's annotations as COCO's own reader takes them."""
    return COCO(demo / f"coco/annotations/instances_{split}2017.json")


def read_labels(demo: Path, split: str, number: int) -> np.ndarray:
    """ADE labels (H, W) uint8 of a picture of a split."""
    name = f"ADE_{split}_{number:08}.png"
    path = demo / "ade/annotations" / SPLITS[split][0] / name
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert labels is not None and labels.dtype == np.uint8 and labels.ndim == 2
    return labels


def annotated(coco: COCO) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every (image, annotation) pair."""
    for annotation in coco.anns.values():
        yield coco.imgs[annotation["image_id"]], annotation


def label_of(demo: Path, coco: COCO, annotation: dict[str, Any]) -> int:
    """The ADE label of an annotation's category, found by its name."""
    names = (demo / "ade/classes.txt").read_text().split()
    return names.index(coco.cats[annotation["category_id"]]["name"]) + 1


def test_coco_reads_every_picture(demo: Path, split: str) -> None:
    coco = read_coco(demo, split)
    ade, count = SPLITS[split]
    assert len(coco.imgs) == count
    assert len(list((demo / "ade/images" / ade).iterdir())) == count
    for number, image in coco.imgs.items():
        name = demo / "coco" / f"{split}2017" / image["file_name"]
        picture = cv2.imread(str(name))
        assert picture is not None
        assert picture.shape == (image["height"], image["width"], 3)
        assert picture.shape[:2] == read_labels(demo, split, number).shape
        assert name.read_bytes() == files(demo / "ade/images" / ade)[f"ADE_{split}_{number:08}.jpg"]


def test_longer_side_is_size_and_shorter_is_close(demo: Path, split: str) -> None:
    for image in read_coco(demo, split).imgs.values():
        sides = sorted((image["width"], image["height"]))
        assert sides[1] == SIZE
        assert 0.75 * SIZE - 1 <= sides[0] <= SIZE


def test_ids_are_unique_and_valid(demo: Path, split: str) -> None:
    path = demo / f"coco/annotations/instances_{split}2017.json"
    content = json.loads(path.read_text())
    assert {"info", "licenses"} <= set(content)
    for key in ("images", "annotations", "categories"):
        ids = [entry["id"] for entry in content[key]]
        assert len(ids) == len(set(ids)) and min(ids) == 1
    coco = read_coco(demo, split)
    for annotation in coco.anns.values():
        assert annotation["image_id"] in coco.imgs and annotation["category_id"] in coco.cats
    names = [category["name"] for category in content["categories"]]
    assert names == SHAPES == (demo / "coco/classes.txt").read_text().split()
    assert all(category["supercategory"] for category in content["categories"])


def test_labels_are_classes_or_ignore(demo: Path, split: str) -> None:
    classes = (demo / "ade/classes.txt").read_text().split()
    assert classes == ["grass", "sand", "water", *SHAPES]
    for number in read_coco(demo, split).imgs:
        assert read_labels(demo, split, number).max() <= len(classes)


def test_polygons_lie_on_pixels_of_their_class(demo: Path, split: str) -> None:
    coco = read_coco(demo, split)
    for image, annotation in annotated(coco):
        if not annotation["iscrowd"]:
            drawn = coco.annToMask(annotation).astype(bool)
            labels = read_labels(demo, split, image["id"])
            right = drawn & (labels == label_of(demo, coco, annotation))
            assert right.sum() >= 0.88 * drawn.sum()
            assert drawn.sum() == pytest.approx(annotation["area"], rel=0.15)


def test_polygons_of_a_class_cover_its_pixels(demo: Path, split: str) -> None:
    coco = read_coco(demo, split)
    drawn: dict[tuple[int, int], np.ndarray] = {}
    for image, annotation in annotated(coco):
        if not annotation["iscrowd"]:
            key = (image["id"], label_of(demo, coco, annotation))
            drawn[key] = drawn.get(key, 0) | coco.annToMask(annotation)
    for number in coco.imgs:
        labels = read_labels(demo, split, number)
        for label in range(4, 9):
            pixels = labels == label
            shapes = drawn.get((number, label), np.zeros_like(labels)) > 0
            assert (pixels & shapes).sum() >= 0.85 * (pixels | shapes).sum()


def test_areas_add_up_to_the_labelled_pixels(demo: Path, split: str) -> None:
    coco = read_coco(demo, split)
    areas: Counter[tuple[int, int]] = Counter()
    for image, annotation in annotated(coco):
        label = 0 if annotation["iscrowd"] else label_of(demo, coco, annotation)
        areas[image["id"], label] += annotation["area"]
    for number in coco.imgs:
        labels = read_labels(demo, split, number)
        for label in (0, 4, 5, 6, 7, 8):
            assert areas[number, label] == (labels == label).sum()


def test_boxes_are_inside_and_tight(demo: Path, split: str) -> None:
    coco = read_coco(demo, split)
    for image, annotation in annotated(coco):
        x, y, w, h = annotation["bbox"]
        assert x >= 0 and y >= 0 and w > 0 and h > 0
        assert x + w <= image["width"] and y + h <= image["height"]
        rows, columns = np.nonzero(coco.annToMask(annotation))
        drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(drawn, (x, y, x + w, y + h))).max() <= 1


@pytest.mark.parametrize("index", [0, 2, 3, 4, 5, 6, 7, 8, 9])
def test_things_stay_visible(index: int) -> None:
    items, owner = scenes.lay_out(np.random.default_rng(index), (120, 160), index)
    for number, item in enumerate(items, 1):
        visible = (owner == number).sum()
        assert visible >= 40 and visible >= 0.35 * item.mask.sum()


def test_a_thing_that_hides_another_is_not_placed() -> None:
    near, far = np.zeros((2, 60, 60), bool)
    far[20:40, 20:40] = True
    near[15:45, 22:45] = True
    owner = np.zeros((60, 60), np.int32)
    items: list[Any] = []
    assert scenes.place(items, owner, scenes.Item("rectangle", [], far))
    before = owner.copy()
    assert not scenes.place(items, owner, scenes.Item("rectangle", [], near))
    assert len(items) == 1 and np.array_equal(owner, before)


def test_each_split_has_a_crowd_that_labels_ignore(demo: Path, split: str) -> None:
    coco = read_coco(demo, split)
    crowds = [pair for pair in annotated(coco) if pair[1]["iscrowd"]]
    assert crowds
    for image, annotation in crowds:
        assert isinstance(annotation["segmentation"]["counts"], str)
        ignored = read_labels(demo, split, image["id"]) == 0
        assert np.array_equal(coco.annToMask(annotation).astype(bool), ignored)


def test_each_split_has_a_picture_without_things(demo: Path, split: str) -> None:
    coco = read_coco(demo, split)
    empty = [number for number in coco.imgs if not coco.getAnnIds(imgIds=[number])]
    assert empty
    for number in empty:
        assert set(np.unique(read_labels(demo, split, number))) <= {1, 2, 3}


@pytest.mark.parametrize("size", [32, 65])
def test_a_single_scene_has_things_and_a_crowd(tmp_path: Path, size: int) -> None:
    tool.generate(tmp_path / "demo", train=1, val=1, size=size)
    for name in SPLITS:
        kinds = {a["iscrowd"] for a in read_coco(tmp_path / "demo", name).anns.values()}
        assert kinds == {0, 1}


def test_same_seed_gives_the_same_bytes(demo: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "again") == 0
    assert files(tmp_path / "again") == files(demo)


def test_other_seed_gives_other_pictures(demo: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "other", "--seed", "1") == 0
    ours, others = files(demo), files(tmp_path / "other")
    assert set(ours) == set(others)
    assert all(ours[name] != others[name] for name in ours if name.endswith(".jpg"))


def test_splits_show_different_scenes(demo: Path) -> None:
    pictures = [data for name, data in files(demo / "coco").items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == 10


def test_a_larger_set_begins_with_the_smaller(demo: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "more", "--train", "8", "--val", "5") == 0
    small, large = files(demo), files(tmp_path / "more")
    kept = [name for name in small if name.endswith((".jpg", ".png"))]
    assert kept and all(small[name] == large[name] for name in kept)
    for name in SPLITS:
        few, more = read_coco(demo, name), read_coco(tmp_path / "more", name)
        assert few.anns.items() <= more.anns.items()


def test_a_second_run_draws_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    assert make(out) == 0
    monkeypatch.setattr(tool, "make_scene", lambda *_: pytest.fail("a scene was drawn"))
    assert make(out) == 0
    assert "already there" in capsys.readouterr().out


def test_other_arguments_need_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert make(out) == 0
    before = files(out)
    assert make(out, "--seed", "1") == 1
    assert "--force" in capsys.readouterr().err
    assert files(out) == before
    assert make(out, "--seed", "1", "--force") == 0
    assert files(out) != before
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize("stamp", [None, "no json", "[]", '{"generator": "another"}'])
@pytest.mark.parametrize("more", [(), ("--force",)])
def test_a_foreign_folder_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stamp: str | None, more: tuple[str, ...]
) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    if stamp is not None:
        (out / "demo.json").write_text(stamp)
    before = files(out)
    assert make(out, *more) == 1
    message = capsys.readouterr().err
    assert str(out) in message and "not made by this tool" in message
    assert files(out) == before


def test_a_file_in_the_way_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("precious")
    assert make(tmp_path / "file", "--force") == 1
    assert make(tmp_path / "file" / "demo") == 1
    assert capsys.readouterr().err.count("error:") == 2
    assert files(tmp_path) == {"file": b"precious"}


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), RuntimeError("bug")])
@pytest.mark.parametrize("before", [False, True])
def test_an_interrupted_run_leaves_out_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, before: bool
) -> None:
    if before:
        assert make(tmp_path / "demo") == 0
    old, draw = files(tmp_path), tool.make_scene

    def draw_two(size: int, key: tuple[int, int, int], layout: scenes.Layout) -> Any:
        if key[2] == 2:
            raise error
        return draw(size, key, layout)

    monkeypatch.setattr(tool, "make_scene", draw_two)
    if isinstance(error, RuntimeError):  # a mistake of ours keeps its traceback
        with pytest.raises(RuntimeError):
            make(tmp_path / "demo", "--force")
    else:
        assert make(tmp_path / "demo", "--force") != 0
    assert files(tmp_path) == old
    assert [path.name for path in tmp_path.iterdir()] == ["demo"] * before


def test_success_leaves_nothing_beside_out(demo: Path) -> None:
    assert [path.name for path in demo.parent.iterdir()] == ["demo"]
    assert {path.name for path in demo.iterdir()} == {"ade", "coco", "demo.json"}


def test_a_link_keeps_leading_to_the_data(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "demo")
    assert make(tmp_path / "link") == 0
    assert make(tmp_path / "link", "--force") == 0
    assert (tmp_path / "link").is_symlink()
    assert files(tmp_path / "disk" / "demo") == files(demo)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("--train", "0", "1"), ("--val", "-3", "1"), ("--size", "31", "32"), ("--seed", "-1", "0")],
)
def test_bad_arguments_name_what_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, allowed: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        tool.main([str(tmp_path / "demo"), option, value])
    assert stop.value.code == 2
    assert f"{option} must be at least {allowed}" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        tool.main(["--help"])
    assert stop.value.code == 0
    assert "example: python tools/make_demo_data.py" in capsys.readouterr().out
