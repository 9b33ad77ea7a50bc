"""What the inputs of tools/predict.py stand for."""

from pathlib import Path

import pytest

from mmengine_agent.predict.inputs import find


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images with a folder of images in it."""
    for name in ("b.png", "a.JPG", "notes.txt", "in/c.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "photos"


def test_a_folder_stands_for_the_media_right_in_it(folder: Path) -> None:
    assert find([str(folder)]) == ([folder / "a.JPG", folder / "b.png"], [])


def test_a_pattern_may_go_into_folders(folder: Path) -> None:
    assert find([f"{folder}/**/*.png"]) == ([folder / "b.png", folder / "in/c.png"], [])


def test_a_file_counts_once_and_whatever_its_name(folder: Path) -> None:
    (folder / "any [1]").touch()
    names = [str(folder / "any [1]"), str(folder / "b.png"), str(folder)]
    assert find(names)[0] == [folder / "any [1]", folder / "b.png", folder / "a.JPG"]


def test_inputs_that_stand_for_nothing_are_named(folder: Path) -> None:
    (folder / "none").mkdir()
    wrong = [str(folder / "no.png"), str(folder / "none"), f"{folder}/*.gif"]
    paths, faults = find([*wrong, str(folder / "b.png")])
    assert paths == [folder / "b.png"]
    assert [fault.partition(": ")[0] for fault in faults] == wrong
