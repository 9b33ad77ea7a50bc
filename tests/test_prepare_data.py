"""prepare_data.py: one fault planted at a time is found, and is the only one."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_faults import (
    ADE,
    COCO_ENTRIES,
    COCO_FILES,
    LABEL,
    ROTATED,
    WARNINGS,
    exif,
    half,
    plant_ade,
    plant_coco,
    rewrite,
    save,
    thumbnail,
    zeros,
)
from data_sets import (
    HEIGHT,
    WIDTH,
    ade_set,
    check,
    check_ade,
    check_coco,
    coco_set,
    picture,
    save_label,
    stripes,
)
from PIL import Image
from pycocotools import mask as coco_mask
from tool_runs import python

from agent_toolkit.commands import data as prepare_data
from mmdet_agent.data.shapes import runs
from mmengine_agent.data.faults import FAULTS, STOPS
from mmengine_agent.data.images import ImageError, measure

# ---- the check ----


@pytest.mark.parametrize("fast", [False, True])
def test_no_alarm_on_clean_sets(tmp_path: Path, fast: bool) -> None:
    flags = ["--fast"] if fast else []
    coco_set(tmp_path / "coco")
    ade_set(tmp_path / "ade")
    for found in (check_coco(tmp_path / "coco", *flags), check_ade(tmp_path / "ade", *flags)):
        assert (found.code, found.faults, found.warnings) == (0, set(), set())


@pytest.mark.parametrize("name", [*COCO_FILES, *COCO_ENTRIES])
def test_a_fault_in_coco_files_is_found_and_no_other(name: str, tmp_path: Path) -> None:
    kind = plant_coco(name, tmp_path)
    found = check_coco(tmp_path)
    assert found.code == 1
    assert found.faults == {kind}


@pytest.mark.parametrize("name", ADE)
def test_a_fault_in_label_maps_is_found_and_no_other(name: str, tmp_path: Path) -> None:
    kind = plant_ade(name, tmp_path)
    found = check_ade(tmp_path)
    assert found.code == 1
    assert found.faults == {kind}


def test_every_kind_of_fault_is_planted() -> None:
    planted = {kind for table in (COCO_FILES, COCO_ENTRIES, ADE) for kind, _ in table.values()}
    assert planted == STOPS.keys() | FAULTS.keys()


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_is_printed_and_fails_nothing(name: str, tmp_path: Path) -> None:
    kind = plant_coco(name, tmp_path)
    found = check_coco(tmp_path)
    assert (found.code, found.faults, found.warnings) == (0, set(), {kind})


def test_labels_that_are_all_ignore_and_classes_without_pixels_are_warnings(tmp_path: Path) -> None:
    ade_set(tmp_path)
    save_label(tmp_path / LABEL, np.where(stripes() > 3, 255, 0).astype(np.uint8))
    found = check(tmp_path, *f"--format ade20k --root {tmp_path} --classes 4".split())
    assert (found.code, found.warnings) == (0, {"label-empty", "category-unused"})


def test_sizes_after_exifs_turn_are_right(tmp_path: Path) -> None:
    ann = coco_set(tmp_path)
    content = json.loads(ann.read_text())
    save("images/a.jpg", picture(0), exif=exif(ROTATED))(content, tmp_path)
    content["images"][0].update(width=HEIGHT, height=WIDTH)
    ann.write_text(json.dumps(content))
    found = check_coco(tmp_path)
    assert (found.code, found.warnings) == (0, {"image-rotated"})


@pytest.mark.parametrize("cut", [half, zeros, thumbnail, lambda data: data[:-2]])
def test_fast_finds_images_that_are_cut_short(cut: Any, tmp_path: Path) -> None:
    coco_set(tmp_path)
    rewrite("images/a.jpg", cut)(None, tmp_path)
    with pytest.raises(ImageError, match="truncated"):
        measure(tmp_path / "images/a.jpg", fast=True)


def test_runs_are_those_of_pycocotools() -> None:
    noise = np.random.RandomState(0).rand(300, 200) > 0.9
    text = coco_mask.encode(np.asfortranarray(noise, np.uint8))["counts"].decode()
    found = runs(text)
    assert found is not None
    again = np.repeat(np.arange(len(found)) % 2, found).reshape(200, 300).T
    assert (again == noise).all()


def test_faults_are_counted_and_named_in_text_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ann = coco_set(tmp_path)
    content = json.loads(ann.read_text())
    for each in content["annotations"]:
        del each["area"]
    ann.write_text(json.dumps(content))
    (tmp_path / "images/b.png").unlink()
    found = check_coco(tmp_path)

    text = capsys.readouterr().out
    assert "6 faults" in text and "0 warnings" in text
    assert "area-missing (5)" in text and "annotations[0] (id 1, image 0)" in text
    assert "images[1] b.png" in text and "annotations: 5" in text
    assert "name: date, instances: 3, images: 3" in text

    report = found.report["sets"][0]
    totals = {each["kind"]: each["total"] for each in report["faults"]}
    assert totals == {"image-missing": 1, "area-missing": 5}
    assert not report["clean"] and not found.report["clean"]
    classes = {each["name"]: each for each in report["figures"]["classes"]}
    assert classes["fig"] == {"name": "fig", "instances": 2, "images": 2}
    assert report["figures"]["boxes"] == {"small": 5, "medium": 0, "large": 0}


def test_pixels_are_counted_by_class(tmp_path: Path) -> None:
    ade_set(tmp_path)
    (tmp_path / "classes.txt").write_text("grass\nsand\nsea\n")
    where = (
        "--root",
        str(tmp_path),
        "--images",
        "images/training",
        "--ann",
        "annotations/training",
    )
    names = ("--classes", str(tmp_path / "classes.txt"))
    found = check(tmp_path, "--format", "ade20k", *where, *names)
    classes = found.report["sets"][0]["figures"]["classes"]
    eighth = WIDTH * HEIGHT // 8
    assert [(each["name"], each["pixels"], each["images"]) for each in classes] == [
        (name, 3 * 2 * eighth, 3) for name in ("(ignore)", "grass", "sand", "sea")
    ]


def test_standard_layout_of_coco(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        ann = coco_set(tmp_path / "new")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        ann.rename(tmp_path / f"annotations/instances_{split}.json")
        (tmp_path / "new/images").rename(tmp_path / split)
        shutil.rmtree(tmp_path / "new")
    (tmp_path / "val2017/a.jpg").unlink()
    found = check(tmp_path, "--format", "coco", "--root", str(tmp_path))
    assert [each["name"] for each in found.report["sets"]] == ["train2017", "val2017"]
    assert [each["clean"] for each in found.report["sets"]] == [True, False]


def test_sheets_are_drawn_whatever_the_faults(tmp_path: Path) -> None:
    content = json.loads(coco_set(tmp_path / "coco").read_text())
    for _, plant in COCO_ENTRIES.values():  # all of them together
        with contextlib.suppress(FileNotFoundError):  # another one took it away
            plant(content, tmp_path / "coco")
    (tmp_path / "coco/all.json").write_text(json.dumps(content))
    ade_set(tmp_path / "ade")
    save_label(tmp_path / "ade" / LABEL, stripes()[1:])
    check_coco(tmp_path / "coco", "--sheet", str(tmp_path / "coco.jpg"))
    check_ade(tmp_path / "ade", "--sheet", str(tmp_path / "ade.png"))
    for name in ("coco.jpg", "ade.png"):
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width == 4 * 360


# ---- mistakes on the command line ----

USAGE = {
    "nothing to check": ("--format coco", "--root"),
    "images alone": ("--format coco --images {here}", "--ann"),
    "no such file": ("--format coco --ann {here}/no.json --images {here}/images", "no.json"),
    "no such folder": ("--format ade20k --root {here}/nowhere", "nowhere/annotations/training"),
    "a folder in the way": (
        "--format coco --ann {here}/all.json --images {here}/images --fix {here}",
        "is not empty",
    ),
    "a sheet of no image": (
        "--format coco --ann {here}/all.json --images {here}/images --sheet a.txt",
        "a.txt",
    ),
    "classes for COCO": ("--format coco --ann a --images b --classes 3", "--classes"),
    "no workers": ("--format coco --ann a --images b --workers 0", "--workers"),
}


@pytest.mark.parametrize("name", USAGE)
def test_a_wrong_command_line_exits_with_2(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco_set(tmp_path)
    arguments, word = USAGE[name]
    with pytest.raises(SystemExit) as ended:
        prepare_data.main(["check", *arguments.format(here=tmp_path).split()])
    assert ended.value.code == 2
    assert word in capsys.readouterr().err


# ---- downloads ----


@pytest.mark.parametrize("name", ["coco", "ade20k"])
def test_download_prints_the_commands_of_the_docs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_data.main(["download", name])
    lines = capsys.readouterr().out.splitlines()
    block = "\n".join(f"    {line}" for line in lines)
    assert block in (Path(__file__).parents[1] / "docs/tools.md").read_text()


@pytest.mark.parametrize("name", ["coco", "ade20k"])
def test_the_command_of_earlier_versions_prints_them_too(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_data.main([name, "--root", "here"])
    before = capsys.readouterr().out
    prepare_data.main(["download", name, "--root", "here"])
    assert before == capsys.readouterr().out != ""


def test_download_quotes_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    prepare_data.main(["download", "ade20k", "--root", "my data"])
    printed = capsys.readouterr().out
    assert "cd 'my data'" in printed
    assert "--root 'my data/ADEChallengeData2016'" in printed


# ---- as a command ----


def test_the_command_exits_with_the_check_and_shows_no_traceback(tmp_path: Path) -> None:
    coco_set(tmp_path)
    (tmp_path / "images/a.jpg").unlink()
    where = ("--root", str(tmp_path), "--ann", "all.json", "--images", "images")
    done = python("prepare_data.py", "check", "--format", "coco", *where, cwd=tmp_path)
    assert done.returncode == 1
    assert "image-missing (1)" in done.stdout
    assert "Traceback" not in done.stderr
