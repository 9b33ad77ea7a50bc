"""prepare_data.py split, and sets that have label maps of their own: Cityscapes, Pascal VOC."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import ade_set, coco_set, snapshot
from PIL import Image

from agent_toolkit.commands import data as prepare_data
from mmengine_agent.data.convert import read_set
from mmengine_agent.data.formats import guess_format
from mmengine_agent.data.split import choose_val
from mmengine_agent.errors import UserError

NAMES = [f"{video}/{frame}.jpg" for video in "abcdefgh" for frame in range(5)]


def run(*words: object) -> None:
    prepare_data.main([str(word) for word in words])


# ---- splitting ----


def test_the_parts_depend_on_the_seed_alone() -> None:
    chosen = choose_val(NAMES, 0.2, 0, None)
    assert len(chosen) == 8 and chosen < {*NAMES}
    assert choose_val(reversed(NAMES), 0.2, 0, None) == chosen
    assert choose_val(NAMES, 0.2, 1, None) != chosen


@pytest.mark.parametrize("pattern", ["^[a-h]", "^([a-h])/", r"(\w)/\d"])
def test_a_group_stays_together(pattern: str) -> None:
    chosen = choose_val(NAMES, 0.25, 3, pattern)
    assert len(chosen) == 10
    videos = {name[0] for name in chosen}
    assert chosen == {name for name in NAMES if name[0] in videos}


@pytest.mark.parametrize(
    ("names", "share", "pattern", "wanted"),
    [
        (NAMES, 0.0, None, "--val"),
        (NAMES, 1.0, None, "--val"),
        (NAMES, 0.2, "(", "regular expression"),
        (NAMES, 0.2, "^[a-c]", "d/0.jpg"),
        (NAMES, 0.2, "jpg", "1 groups"),
        (NAMES[:1], 0.2, None, "1 groups"),
    ],
)
def test_what_cannot_be_split_is_said(
    names: list[str], share: float, pattern: str | None, wanted: str
) -> None:
    with pytest.raises(UserError) as error:
        choose_val(names, share, 0, pattern)
    assert wanted in str(error.value)


def test_a_coco_file_is_split_without_an_image_in_both(tmp_path: Path) -> None:
    ann = coco_set(tmp_path)
    content = json.loads(ann.read_text())
    content |= {"info": {"version": "7"}}
    content["annotations"].append({"id": 99, "image_id": 77})
    ann.write_text(json.dumps(content))
    more = ("--val", 0.3, "--group-by", r"(\w)\.")
    run("split", "--format", "coco", "--ann", ann, *more, "--out", tmp_path / "out")
    parts = [json.loads((tmp_path / f"out/{name}.json").read_text()) for name in ("train", "val")]
    ids: list[set[int]] = [{image["id"] for image in part["images"]} for part in parts]
    assert ids[0] | ids[1] == {0, 1, 2} and not ids[0] & ids[1] and all(ids)
    for part, own in zip(parts, ids, strict=True):
        assert {note["image_id"] for note in part["annotations"]} == own
        assert (part["categories"], part["info"]) == (content["categories"], content["info"])
    assert sum(len(part["annotations"]) for part in parts) == 5


def test_pairs_are_split_by_links_and_stay_as_they_are(tmp_path: Path) -> None:
    ade_set(tmp_path)
    before = snapshot(tmp_path)
    where = ["--ann", tmp_path / "annotations/training", "--images", tmp_path / "images/training"]
    out = tmp_path / "out"
    run("split", "--format", "ade20k", *where, "--out", out)
    for part, count in (("training", 2), ("validation", 1)):
        images = {path.stem for path in (out / "images" / part).iterdir()}
        assert len(images) == count
        assert images == {path.stem for path in (out / "annotations" / part).iterdir()}
    assert snapshot(tmp_path).items() >= before.items()


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    ann, before = coco_set(tmp_path), snapshot(tmp_path)
    with pytest.raises(UserError, match="not empty"):
        run("split", "--format", "coco", "--ann", ann, "--out", tmp_path)
    with pytest.raises(UserError, match="--images"):
        run("split", "--format", "ade20k", "--ann", tmp_path, "--out", tmp_path / "out")
    assert snapshot(tmp_path) == before


# ---- sets with label maps of their own ----


def cityscapes(root: Path) -> None:
    """One image a split: a road, a car, and a group of cars."""
    labels = np.full((8, 12), 7, np.uint8)
    labels[2:4, 2:5] = labels[6:8] = 26
    labels[0] = 4  # static: no class that is evaluated
    instances = labels.astype(np.uint16)
    instances[2:4, 2:5] = 26000
    for split in ("train", "val"):
        name = f"{split}/bonn/bonn_000000_000019_"
        for path in (root / "leftImg8bit" / name, root / "gtFine" / name):
            path.parent.mkdir(parents=True)
        image = np.zeros((8, 12, 3), np.uint8)
        Image.fromarray(image).save(root / f"leftImg8bit/{name}leftImg8bit.png")
        Image.fromarray(labels).save(root / f"gtFine/{name}gtFine_labelIds.png")
        Image.fromarray(instances).save(root / f"gtFine/{name}gtFine_instanceIds.png")


def test_objects_and_groups_of_cityscapes(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    assert guess_format(tmp_path) == "cityscapes"
    source = read_set("cityscapes", tmp_path, ())
    assert source.splits == ["train", "val"]
    group, car = source.pictures[0].shapes
    assert (group.name, group.crowd, car.name, car.crowd) == ("car", True, "car", False)
    assert [sum(each.mask["counts"][1::2]) for each in (group, car) if each.mask] == [24, 6]


def converted(form: str, tmp_path: Path, *more: Any) -> Path:
    where = ("--from", form, "--root", tmp_path, "--to", "ade20k", "--out", tmp_path / "ade")
    run("convert", *where, *more)
    return tmp_path / "ade"


def test_label_maps_of_cityscapes_are_numbered_as_mmseg_names_them(tmp_path: Path) -> None:
    cityscapes(tmp_path)
    out = converted("cityscapes", tmp_path)
    names = (out / "classes.txt").read_text().splitlines()
    (path,) = (out / "annotations/validation").glob("*.png")
    labels = np.asarray(Image.open(path))
    assert (labels[0] == 0).all()
    assert {names[number - 1] for number in np.unique(labels[1:])} == {"road", "car"}
    (image,) = (out / "images/validation").glob("*.png")
    assert image.stem == path.stem and image.is_file()


def test_label_maps_of_voc_are_numbered_anew(tmp_path: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / f"JPEGImages/{name}.jpg")
        labels = Image.fromarray(np.array([[0, 1, 20, 255, 0, 0]] * 4, np.uint8))
        labels.putpalette([7] * 768)
        labels.save(tmp_path / f"SegmentationClass/{name}.png")
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\n")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("b\n")
    out = converted("voc", tmp_path)
    labels = np.asarray(Image.open(out / "annotations/validation/b.png"))
    assert labels[0].tolist() == [1, 2, 21, 0, 1, 1]
    with pytest.raises(UserError, match="not for label maps of voc"):
        converted("voc", tmp_path / "b", "--background", "floor")
    (tmp_path / "SegmentationClass/a.png").unlink()
    with pytest.raises(UserError, match=r"SegmentationClass/a\.png"):
        run("convert", *f"--from voc --root {tmp_path} --to ade20k --out {tmp_path / 'c'}".split())
    assert not (tmp_path / "c").exists()
