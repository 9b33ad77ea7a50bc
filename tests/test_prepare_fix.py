"""prepare_data.py check --fix: a copy without faults that keeps all that was good."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from data_faults import ADE, COCO_ENTRIES, plant_ade, plant_coco
from data_sets import Checked, check_ade, check_coco, snapshot, square

from agent_toolkit.commands import data as prepare_data
from mmengine_agent.errors import UserError

Content = Any  # of a COCO file


def recheck(folder: Path, cleaned: Path) -> tuple[Checked, Content]:
    content = json.loads((cleaned / "all.json").read_text())
    return check_coco(folder, ann=str(cleaned / "all.json")), content


def planted_and_fixed(name: str, folder: Path) -> Content:
    """What --fix makes of a set with one fault."""
    plant_coco(name, folder / "set")
    check_coco(folder / "set", "--fix", str(folder / "cleaned"))
    return recheck(folder / "set", folder / "cleaned")[1]


def places(found: Checked) -> set[int]:
    """The annotations that have a fault."""
    listed = [
        place["place"] for kind in found.report["sets"][0]["faults"] for place in kind["places"]
    ]
    return {int(number) for number in re.findall(r"annotations\[(\d+)\]", " ".join(listed))}


@pytest.mark.parametrize("name", COCO_ENTRIES)
def test_a_cleaned_coco_file_has_no_faults_and_what_was_good(name: str, tmp_path: Path) -> None:
    folder, cleaned = tmp_path / "set", tmp_path / "cleaned"
    plant_coco(name, folder)
    before = snapshot(folder)
    bad = places(check_coco(folder, "--fix", str(cleaned)))
    (folder / "report.json").unlink()
    assert snapshot(folder) == before
    found, content = recheck(folder, cleaned)
    assert (found.code, found.faults) == (0, set())

    old = json.loads((folder / "all.json").read_text())
    images = {each["id"] for each in content["images"]}
    categories = {each["id"] for each in content["categories"]}
    assert len(images) >= 2 and len(content["annotations"]) >= 2
    for index, each in enumerate(old["annotations"]):
        if index not in bad and each["image_id"] in images and each["category_id"] in categories:
            assert {**each, "id": 0} in [{**kept, "id": 0} for kept in content["annotations"]]


MENDED: dict[str, dict[str, Any]] = {
    "no iscrowd": {"iscrowd": 0},
    "a box of three": {"bbox": [6.0, 6.0, 20.0, 20.0]},
    "a box of negative height": {"bbox": [6.0, 6.0, 20.0, 20.0]},
    "a box beyond the right": {"bbox": [6.0, 6.0, 20.0, 20.0]},  # the polygon is elsewhere
    "a box beyond the top": {"bbox": [6.0, 6.0, 20.0, 20.0]},
    "no area": {"area": 400.0},
    "a polygon outside": {"segmentation": [[1.0, 1.0, 64.0, 1.0, 9.0, 40.0]]},
    "annotation id twice": {"id": 6},
}


@pytest.mark.parametrize("name, wanted", MENDED.items())
def test_what_is_certain_is_mended(name: str, wanted: dict[str, Any], tmp_path: Path) -> None:
    content = planted_and_fixed(name, tmp_path)
    assert len(content["annotations"]) == 5
    mended = [each for each in content["annotations"] if wanted.items() <= each.items()]
    assert mended


@pytest.mark.parametrize("name", ["image file twice", "category name twice"])
def test_what_is_there_twice_becomes_one(name: str, tmp_path: Path) -> None:
    folder, cleaned = tmp_path / "set", tmp_path / "cleaned"
    plant_coco(name, folder)
    content = json.loads((folder / "all.json").read_text())
    key, number = ("image_id", 99) if len(content["images"]) == 4 else ("category_id", 8)
    content["annotations"][0][key] = number  # of the second entry
    (folder / "all.json").write_text(json.dumps(content))
    check_coco(folder, "--fix", str(cleaned))
    found, content = recheck(folder, cleaned)
    assert found.code == 0
    assert content["annotations"][0] == square(1, 0, 3)
    assert (len(content["images"]), len(content["categories"])) == (3, 2)


@pytest.mark.parametrize(
    "name, images, categories",
    [
        ("image entry twice", [0, 1, 2], [3, 7]),
        ("image id twice", [1, 2], [3, 7]),
        ("category id twice", [0, 1, 2], [7]),
    ],
)
def test_nothing_is_kept_of_an_id_that_may_be_either(
    name: str, images: list[int], categories: list[int], tmp_path: Path
) -> None:
    content = planted_and_fixed(name, tmp_path)
    assert [each["id"] for each in content["images"]] == images
    assert [each["id"] for each in content["categories"]] == categories


@pytest.mark.parametrize("name", ADE)
def test_good_pairs_are_linked(name: str, tmp_path: Path) -> None:
    folder, cleaned = tmp_path / "set", tmp_path / "cleaned"
    kind = plant_ade(name, folder)
    check_ade(folder, "--fix", str(cleaned))
    found = check_ade(cleaned)
    assert (found.code, found.faults) == (0, set())
    names = {path.name for path in (cleaned / "images/training").iterdir()}
    mended = kind == "image-suffix"
    assert names == {"scene.0.jpg", "scene.2.jpg"} | ({"scene.1.jpg"} if mended else set())
    assert (cleaned / "images/training/scene.0.jpg").is_symlink()
    assert len([*(cleaned / "annotations/validation").iterdir()]) == 3


@pytest.mark.parametrize("name", ["JSON cut short", "a list"])
def test_what_cannot_be_cleaned_leaves_nothing(name: str, tmp_path: Path) -> None:
    plant_coco(name, tmp_path)
    with pytest.raises(UserError, match=r"all\.json is no COCO file"):
        where = f"--ann {tmp_path}/all.json --images {tmp_path}/images"
        prepare_data.main(f"check --format coco {where} --fix {tmp_path}/cleaned".split())
    assert not (tmp_path / "cleaned").exists()
    assert not [*tmp_path.glob(".cleaned*")]
