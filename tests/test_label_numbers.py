"""Label maps that begin at 0, have colours, or numbers in no order: read as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import check, picture
from mmengine.config import Config
from own_data import ADE, ADE_DEMO, COCO, LOADERS, build_dataset, counts, load, message, parse
from PIL import Image

from mmengine_agent.data.checked_loading import check_loading
from mmengine_agent.data.user_data import DataFlags, point_at
from mmengine_agent.errors import BadSample
from mmengine_agent.predict.classes import classes_of
from mmengine_agent.task import task_of
from mmseg_agent.data.palette import read_palette

NAMES = ("road", "sky", "tree top")
WORDS = (*NAMES, "ignore")
COLOURS = np.array([(128, 64, 128), (70, 130, 180), (107, 142, 35), (0, 0, 0)], np.uint8)
SIZE = (64, 48)  # of images
# by the way they are written: values of the labels 0, 1, 2 and of what is none, and the flags
VALUES: dict[str, tuple[Any, dict[str, Any]]] = {
    "from 0": ((0, 1, 2, 255), {"classes": NAMES, "labels_from": 0}),
    "from 1": ((1, 2, 3, 0), {"classes": NAMES}),
    "from 1, said": ((1, 2, 3, 0), {"classes": NAMES, "labels_from": 1}),
    "numbers": ((7, 8, 40, 11), {"palette": "numbers.txt"}),
    "colours": (COLOURS, {"palette": "colours.txt"}),
}
FILES = {"colours.txt": COLOURS.tolist(), "numbers.txt": [[7], [8], [40], [11]]}


def labels(split: int) -> np.ndarray:
    """Places (48, 64) in ``VALUES``: 0, 1, 2 and 3 for none."""
    return np.tile(np.arange(SIZE[0], dtype=np.uint8) // 2 + split, (SIZE[1], 1)) % 4


def write(way: str, folder: Path) -> None:
    """Two splits of one image, with label maps written in one of the ways."""
    for split, name in enumerate(("train", "val")):
        for part in (name, f"{name}_labels"):
            (folder / part).mkdir(parents=True)
        picture(split, size=SIZE).save(folder / name / "a.png")
        maps = np.array(VALUES[way][0], np.uint8)[labels(split)]
        Image.fromarray(maps).save(folder / f"{name}_labels/a.png")
    for file, values in FILES.items():
        pairs = zip(WORDS, values, strict=True)
        lines = [" ".join(map(str, [name, *value])) for name, value in pairs]
        (folder / file).write_text("\n".join(["# mine", "", *lines]))


def flags_of(way: str, folder: Path) -> DataFlags:
    more = VALUES[way][1]
    if "palette" in more:
        more = {"palette": str(folder / more["palette"])}
    return DataFlags(str(folder), "train_labels", "val_labels", "train", "val", **more)


def pointed(way: str, folder: Path, path: Path = ADE_DEMO) -> Config:
    cfg = load(path)
    assert point_at(cfg, flags_of(way, folder)) == [*NAMES]
    return cfg


@pytest.mark.parametrize("way", VALUES)
def test_every_way_of_writing_gives_the_same_labels(way: str, tmp_path: Path) -> None:
    write(way, tmp_path)
    cfg = pointed(way, tmp_path, ADE)
    assert counts(cfg.model) == [3]
    assert [*task_of(cfg).data_problems(cfg, ("train", "val"))] == []
    for loader, split in zip(LOADERS, (0, 1), strict=False):
        steps = cfg[loader].dataset.pipeline
        kept = [step for step in steps if "Load" in step["type"] or "Pack" in step["type"]]
        cfg[loader].dataset.pipeline = kept  # without crops and mirrors
        dataset = build_dataset(cfg, loader)
        check_loading(dataset, None, task_of(cfg).label_check(dataset.metainfo["classes"]))
        found = dataset[0]["data_samples"].gt_sem_seg.data[0].numpy()
        assert (found == np.array([0, 1, 2, 255])[labels(split)]).all()


@pytest.mark.parametrize("way", VALUES)
def test_predictions_are_written_in_numbers_that_the_same_flags_read(
    way: str, tmp_path: Path
) -> None:
    write(way, tmp_path)
    classes = classes_of(pointed(way, tmp_path), {}, None)
    assert classes.ids == ((1, 2, 3) if way.startswith("from 1") else (0, 1, 2))
    if way == "colours":
        assert [*map(list, classes.colours)] == COLOURS[:3].tolist()


@pytest.mark.parametrize("way", VALUES)
def test_the_check_of_every_way_finds_nothing(way: str, tmp_path: Path) -> None:
    write(way, tmp_path)
    flags = flags_of(way, tmp_path)
    more = ["--palette", flags.palette] if flags.palette else ["--classes", *NAMES]
    more += ["--labels-from", "0"] if flags.labels_from == 0 else []
    where = ["--root", str(tmp_path), "--images", "val", "--ann", "val_labels"]
    sheet = ["--sheet", str(tmp_path / "sheet.png")]
    found = check(tmp_path, "--format", "ade20k", *where, *map(str, more), *sheet)
    assert (found.code, found.faults, found.warnings) == (0, set(), set())
    classes = found.report["sets"][0]["figures"]["classes"]
    figures = {each["name"]: each["pixels"] for each in classes}
    assert figures == dict.fromkeys(("(ignore)", *NAMES), 768)


def test_a_colour_that_is_no_class_is_named_with_file_and_place(tmp_path: Path) -> None:
    write("colours", tmp_path)
    path = tmp_path / "train_labels/a.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[5, 9:11] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    cfg = pointed("colours", tmp_path)
    (problem,) = task_of(cfg).data_problems(cfg, ("train", "val"))
    dataset = build_dataset(cfg, "train_dataloader")
    check_loading(dataset, None, task_of(cfg).label_check(NAMES))
    with pytest.raises(BadSample) as error:
        dataset[0]
    for text in (problem.text, str(error.value)):
        for words in (str(path), "(1, 2, 3)", "x 9, y 5", "2 such pixels"):
            assert words in text


@pytest.mark.parametrize(
    ("way", "other", "wanted"),
    [
        ("from 0", "from 1", "--labels-from 0"),
        ("from 1", "from 0", "classes are 0..2"),
        ("colours", "from 1", "--palette"),
        ("colours", "numbers", "numbers"),
    ],
)
def test_a_wrong_way_is_noticed_before_training(
    way: str, other: str, wanted: str, tmp_path: Path
) -> None:
    write(way, tmp_path)
    cfg = pointed(other, tmp_path)
    found = [*task_of(cfg).data_problems(cfg, ("train",))]
    assert len(found) == 1 and wanted in found[0].text


# ---- palette files ----


@pytest.mark.parametrize(
    ("line", "name", "key"),
    [
        ("road 128 64 128", "road", "#804080"),
        ("traffic light  250, 170, 30", "traffic light", "#faaa1e"),
        ("zone 3: 1,2,3::", "zone 3", "#010203"),  # as CVAT's labelmap.txt
        ("64 128 64\tAnimal", "Animal", "#408040"),  # as CamVid's label_colors.txt
        ("class 1 7", "class 1", "7"),
    ],
)
def test_a_line_is_a_name_and_a_colour_or_a_number(
    line: str, name: str, key: str, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text(f"{line} # a comment\n")
    palette = read_palette(str(tmp_path / "p.txt"))
    assert (palette.names, palette.table) == ((name,), {key: 0})


def test_lines_of_one_name_are_one_class(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("car 1 1 1\nignore 2 2 2\ntree 3 3 3\ncar 4 4 4\n")
    palette = read_palette(str(tmp_path / "p.txt"))
    assert palette.names == ("car", "tree") and palette.colours == ((1, 1, 1), (3, 3, 3))
    assert palette.table == {"#010101": 0, "#020202": 255, "#030303": 1, "#040404": 0}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("road", ":1: 'road'"),
        ("a 1 2 3\nroad 1 2 300", ":2: 'road 1 2 300'"),
        ("a 1 2 3\nb 1 2 3", ":2: b 1 2 3: #010203"),
        ("a 1\nb 1 2 3", ":2: colours and numbers"),
        ("# nothing\nignore 1 1 1", "names 0 classes"),
        (b"\xff\xfe", "cannot read"),
    ],
)
def test_a_file_that_is_no_palette_is_named(text: str | bytes, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = message(read_palette, str(path))
    assert str(path) in said and wanted in said


@pytest.mark.parametrize("more", [("--classes", "road"), ("--labels-from", "0")])
def test_two_flags_do_not_say_the_same(more: tuple[str, ...]) -> None:
    assert more[0] in message(parse, "--palette", "p.txt", *more)


def test_a_detector_has_no_label_maps() -> None:
    assert "--labels-from" in message(point_at, load(COCO), parse("--labels-from", "0"))
