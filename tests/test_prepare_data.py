"""prepare_data.py: one fault planted at a time is found, and is the only one."""

import contextlib
import copy
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import prepare_data
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mmdet_agent.data.masks import runs
from mmengine_agent.data.faults import KINDS
from mmengine_agent.data.images import probe
from mmengine_agent.errors import UserError

WIDTH, HEIGHT = 64, 48
ROTATED = 6  # EXIF orientation: lies on its side
GONE = object()  # in place of a value: take the key away

Content = Any  # of a COCO file
Plant = Callable[[Content, Path], Content | None]


# ---- sets without faults ----


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    """Noise, which compresses badly: half of the file is half of the picture."""
    shape = (size[1], size[0], 3)
    noise = np.random.RandomState(seed).randint(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def crowd() -> dict[str, Any]:
    """An RLE of the lower right quarter, as lists."""
    rows = [0] * (HEIGHT // 2) + [1] * (HEIGHT // 2)
    columns = [0] * HEIGHT * (WIDTH // 2) + rows * (WIDTH // 2)
    counts, last = [0], 0
    for pixel in columns:
        if pixel != last:
            counts.append(0)
            last = pixel
        counts[-1] += 1
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def compressed() -> dict[str, Any]:
    """The same as text."""
    rle = coco_mask.frPyObjects(crowd(), HEIGHT, WIDTH)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def square(number: int, image: int, category: int, **changes: Any) -> dict[str, Any]:
    x, y = 4.0 + 2 * number, 6.0
    polygon = [x, y, x + 20, y, x + 20, y + 20, x, y + 20]
    note = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
    shape = {"bbox": [x, y, 20.0, 20.0], "area": 400.0, "segmentation": [polygon]}
    return {**note, **shape, **changes}


def coco_set(folder: Path) -> Path:
    """A set of three images and five objects, in ``folder``; the annotation file."""
    (folder / "images/more").mkdir(parents=True)
    names = ("a.jpg", "b.png", "more/c.jpg")
    for seed, name in enumerate(names):
        picture(seed).save(folder / "images" / name)
    images = [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        for number, name in enumerate(names)  # ids from 0 are as good as from 1
    ]
    quarter = [WIDTH / 2, HEIGHT / 2, WIDTH / 2, HEIGHT / 2]
    far = {"bbox": quarter, "area": WIDTH * HEIGHT / 4, "iscrowd": 1}
    notes = [
        square(1, 0, 3),
        square(2, 0, 7),
        square(3, 1, 3),
        square(4, 2, 7, **far, segmentation=crowd()),
        square(5, 1, 7, **far, segmentation=compressed()),
    ]
    categories = [{"id": 3, "name": "fig"}, {"id": 7, "name": "date"}]
    content = {"images": images, "annotations": notes, "categories": categories}
    (folder / "all.json").write_text(json.dumps(content))
    return folder / "all.json"


def ade_set(folder: Path) -> None:
    """Two splits in the standard layout: plain labels and palettes, classes 1..3."""
    for split in ("training", "validation"):
        for number in range(3):
            name = folder / "images" / split / f"scene.{number}"
            label = folder / "annotations" / split / f"scene.{number}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(f"{name}.jpg")
            save_label(label, stripes(), palette=number == 0)


def stripes() -> np.ndarray:
    """Labels (HEIGHT, WIDTH) 0..3 and 255."""
    return np.tile(np.array([0, 1, 2, 3, 3, 255, 1, 2], np.uint8), (HEIGHT, WIDTH // 8))


def save_label(path: Path, values: np.ndarray, palette: bool = False) -> None:
    image = Image.fromarray(values)
    if palette:
        image.putpalette(list(range(255, -1, -1)) * 3)  # colours that are not the labels
    image.save(path)


# ---- running the check ----


@dataclass(frozen=True)
class Checked:
    code: int
    faults: set[str]
    warnings: set[str]
    report: dict[str, Any]


def check(folder: Path, *arguments: str) -> Checked:
    report = folder / "report.json"
    with pytest.raises(SystemExit) as ended:
        prepare_data.main(["check", *arguments, "--report", str(report)])
    content = json.loads(report.read_text())
    faults, warnings = (
        {each["kind"] for found in content["sets"] for each in found[level]}
        for level in ("faults", "warnings")
    )
    return Checked(int(str(ended.value.code)), faults, warnings, content)


def check_coco(folder: Path, *more: str, ann: str = "all.json") -> Checked:
    where = ("--root", str(folder), "--ann", ann, "--images", "images")
    return check(folder, "--format", "coco", *where, *more)


def check_ade(folder: Path, *more: str) -> Checked:
    return check(folder, "--format", "ade20k", "--root", str(folder), "--classes", "3", *more)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- planting ----


def note(**changes: Any) -> Plant:
    """Change keys of the first annotation."""
    return lambda content, folder: change(content["annotations"][0], changes)


def rle(**changes: Any) -> Plant:
    """Change keys of the crowd's mask."""
    return lambda content, folder: change(content["annotations"][3]["segmentation"], changes)


def entry(part: str, **changes: Any) -> Plant:
    """Change keys of the first image or category."""
    return lambda content, folder: change(content[part][0], changes)


def change(target: dict[str, Any], changes: dict[str, Any]) -> None:
    target.update(changes)
    for key in [key for key, value in changes.items() if value is GONE]:
        del target[key]


def more(part: str, like: int = 0, **changes: Any) -> Plant:
    """Another entry, like one that is there."""

    def plant(content: Content, folder: Path) -> None:
        content[part].append({**copy.deepcopy(content[part][like]), **changes})

    return plant


def rewrite(name: str, function: Callable[[bytes], bytes]) -> Plant:
    """Change the bytes of a file."""

    def plant(content: Content, folder: Path) -> None:
        path = folder / name
        path.write_bytes(function(path.read_bytes()))

    return plant


def save(name: str, image: Image.Image, **options: Any) -> Plant:
    """Write another picture in place of a file."""

    def plant(content: Content, folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name, **options)

    return plant


def unlink(name: str) -> Plant:
    return lambda content, folder: (folder / name).unlink()


def rename(old: str, new: str) -> Plant:
    return lambda content, folder: (folder / old).rename(folder / new) and None


def replaced(content: Any) -> Plant:
    """Another content of the annotation file; text is written as it is."""
    return lambda _, folder: content


def without_lists(*names: str) -> Plant:
    return lambda content, folder: {key: content[key] for key in content if key not in names}


def emptied(*names: str) -> Plant:
    return lambda content, folder: {**content, **{name: [] for name in names}}


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def zeros(data: bytes) -> bytes:
    """Half a download into a file that was made at full size."""
    return half(data) + bytes(len(data) - len(data) // 2)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def both(*plants: Plant) -> Plant:
    def plant(content: Content, folder: Path) -> None:
        for each in plants:
            each(content, folder)

    return plant


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def thumbnail(data: bytes) -> bytes:
    """A JPEG with a small JPEG in an APP segment, cut after half of its own pixels."""
    small = io.BytesIO()
    picture(9, size=(16, 16)).save(small, "JPEG")
    inside = b"\xff\xe1" + (len(small.getvalue()) + 2).to_bytes(2, "big") + small.getvalue()
    return half(data[:2] + inside + data[2:])


NAN = float("nan")
LINE = [[1, 1, 9, 9, 5, 5]]  # a polygon without an area

COCO_FILES: dict[str, tuple[str, Plant]] = {
    "JSON cut short": ("json-syntax", lambda content, folder: json.dumps(content)[:-50]),
    "no JSON": ("json-syntax", replaced("hello")),
    "not text": ("json-syntax", replaced("\udcff\udcfe")),
    "a list": ("json-layout", replaced([])),
    "no categories": ("json-layout", without_lists("categories")),
    "images no list": ("json-layout", replaced({"images": 1, "annotations": [], "categories": []})),
    "nothing listed": ("set-empty", emptied("images", "annotations")),
}
COCO_ENTRIES: dict[str, tuple[str, Plant]] = {
    "no width": ("image-keys", entry("images", width=GONE)),
    "height as text": ("image-keys", entry("images", height="48")),
    "width 0": ("image-keys", entry("images", width=0)),
    "no file name": ("image-keys", entry("images", file_name=GONE)),
    "an image of text": ("image-keys", lambda content, _: content["images"].append("a.jpg")),
    "image id twice": (
        "image-id-twice",
        both(save("images/d.jpg", picture(4)), more("images", file_name="d.jpg")),
    ),
    "image entry twice": ("image-id-twice", more("images")),
    "image file twice": ("image-file-twice", more("images", id=99)),
    "image file twice, spelt otherwise": (
        "image-file-twice",
        more("images", id=99, file_name="more/../a.jpg"),
    ),
    "out of the folder": ("image-path", entry("images", file_name="../images/a.jpg")),
    "an absolute path": ("image-path", entry("images", file_name="/etc/hostname")),
    "missing": ("image-missing", unlink("images/a.jpg")),
    "a text for an image": ("image-unreadable", rewrite("images/a.jpg", lambda data: b"hello")),
    "a bit flipped in a PNG": ("image-unreadable", rewrite("images/b.png", flipped)),
    "half a JPEG": ("image-truncated", rewrite("images/a.jpg", half)),
    "half a JPEG, then zeros": ("image-truncated", rewrite("images/a.jpg", zeros)),
    "half a JPEG with a thumbnail": ("image-truncated", rewrite("images/a.jpg", thumbnail)),
    "the end of a JPEG": ("image-truncated", rewrite("images/a.jpg", lambda data: data[:-2])),
    "the start of a JPEG": ("image-truncated", rewrite("images/a.jpg", lambda data: data[:90])),
    "half a PNG": ("image-truncated", rewrite("images/b.png", half)),
    "the end of a PNG": ("image-truncated", rewrite("images/b.png", lambda data: data[:-12])),
    "an empty file": ("image-truncated", rewrite("images/a.jpg", lambda data: b"")),
    "a format of its own": ("image-format", save("images/a.jpg", picture(0), format="PCX")),
    "width and height swapped": (
        "image-size",
        save("images/a.jpg", picture(0, size=(HEIGHT, WIDTH))),
    ),
    "sizes before EXIF's turn": (
        "image-size",
        save("images/a.jpg", picture(0), exif=exif(ROTATED)),
    ),
    "no category name": ("category-keys", entry("categories", name=GONE)),
    "category id twice": ("category-id-twice", more("categories", name="nut")),
    "category name twice": ("category-name-twice", more("categories", id=8)),
    "no image id": ("annotation-keys", note(image_id=GONE)),
    "annotation id as text": ("annotation-keys", note(id="1")),
    "no box": ("annotation-keys", note(bbox=GONE)),
    "an annotation of text": ("annotation-keys", lambda c, _: c["annotations"].append("fig")),
    "annotation id twice": ("annotation-id-twice", note(id=2)),
    "of no image": ("annotation-image", note(image_id=55)),
    "of no category": ("annotation-category", note(category_id=55)),
    "no iscrowd": ("iscrowd", note(iscrowd=GONE)),
    "iscrowd 2": ("iscrowd", note(iscrowd=2)),
    "a box of three": ("box-length", note(bbox=[1, 2, 3])),
    "a box of nothing": ("box-length", note(bbox=None)),
    "NaN in a box": ("box-number", note(bbox=[1, NAN, 3, 4])),
    "text in a box": ("box-number", note(bbox=[1, "2", 3, 4])),
    "a number beyond floats in a box": ("box-number", note(bbox=[1, 10**400, 3, 4])),
    "a box of width 0": ("box-empty", note(bbox=[1, 2, 0, 4])),
    "a box of negative height": ("box-empty", note(bbox=[1, 2, 3, -4])),
    "a box beyond the right": ("box-outside", note(bbox=[50, 2, 20, 20])),
    "a box beyond the top": ("box-outside", note(bbox=[6, -5, 20, 31])),
    "no area": ("area-missing", note(area=GONE)),
    "area as text": ("area-type", note(area="400")),
    "area NaN": ("area-type", note(area=NAN)),
    "area 0": ("area-value", note(area=0)),
    "a mask of text": ("mask-type", note(segmentation="RLE")),
    "a polygon of a line": ("mask-empty", note(segmentation=LINE)),
    "an RLE of background": ("mask-empty", rle(counts=[WIDTH * HEIGHT])),
    "a polygon of seven": ("polygon-length", note(segmentation=[[1, 1, 9, 1, 9, 9, 5]])),
    "a polygon of two corners": ("polygon-length", note(segmentation=[[1, 1, 9, 9]])),
    "a polygon not in a list": ("polygon-length", note(segmentation=[1, 1, 9, 1, 9, 9])),
    "NaN in a polygon": ("polygon-number", note(segmentation=[[1, 1, 9, NAN, 9, 9]])),
    "text in a polygon": ("polygon-number", note(segmentation=[[1, 1, 9, "1", 9, 9]])),
    "a polygon outside": ("polygon-outside", note(segmentation=[[1, 1, 99, 1, 9, 40]])),
    "RLE size swapped": ("rle-size", rle(size=[WIDTH, HEIGHT])),
    "RLE without size": ("rle-size", rle(size=GONE)),
    "RLE too short": ("rle-counts", rle(counts=[10, 20])),
    "RLE with a negative run": ("rle-counts", rle(counts=[WIDTH * HEIGHT + 2, 4, -6])),
    "RLE without counts": ("rle-counts", rle(counts=GONE)),
    "RLE text cut short": ("rle-counts", rle(counts=compressed()["counts"][:-1])),
    "RLE text of other letters": ("rle-counts", rle(counts="é!")),
}
TRAIN = "images/training/scene.1.jpg"
LABEL = "annotations/training/scene.1.png"
DEEP = stripes() + np.uint16(300) * (stripes() == 3)
ADE: dict[str, tuple[str, Plant]] = {
    "no label map": ("label-missing", unlink(LABEL)),
    "no image": ("label-orphan", unlink(TRAIN)),
    "a label map as JPEG": ("label-suffix", rename(LABEL, LABEL.replace("png", "jpg"))),
    "a label map of text": ("label-unreadable", rewrite(LABEL, lambda data: b"hello")),
    "half a label map": ("label-truncated", rewrite(LABEL, lambda data: data[:-16])),
    "labels as colours": ("label-channels", save(LABEL, picture(1))),
    "labels with transparency": ("label-channels", save(LABEL, picture(1).convert("LA"))),
    "values of 16 bits": ("label-depth", save(LABEL, Image.fromarray(DEEP))),
    "labels of another size": ("label-size", save(LABEL, Image.fromarray(stripes()[1:]))),
    "an image turned by EXIF": ("label-size", save(TRAIN, picture(1), exif=exif(ROTATED))),
    "a class too many": ("label-range", save(LABEL, Image.fromarray(stripes() % 254 + 1))),
    "a text for an image": ("image-unreadable", rewrite(TRAIN, lambda data: b"hello")),
    "half an image": ("image-truncated", rewrite(TRAIN, half)),
    "another ending": ("image-suffix", rename(TRAIN, TRAIN.replace("jpg", "JPG"))),
    "a link to nothing": (
        "image-missing",
        both(unlink(TRAIN), lambda _, folder: (folder / TRAIN).symlink_to("nowhere")),
    ),
}


@pytest.fixture
def planted(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The kind of a fault, and a COCO-like set with that fault alone."""
    kind, plant = {**COCO_FILES, **COCO_ENTRIES}[request.param]
    ann = coco_set(tmp_path)
    content = json.loads(ann.read_text())
    new = plant(content, tmp_path)
    content = content if new is None else new
    written = content if isinstance(content, str) else json.dumps(content)
    ann.write_bytes(written.encode("utf-8", "surrogateescape"))
    return kind, tmp_path


@pytest.fixture
def planted_ade(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    kind, plant = ADE[request.param]
    ade_set(tmp_path)
    plant(None, tmp_path)
    return kind, tmp_path


# ---- the check ----


@pytest.mark.parametrize("fast", [False, True])
def test_no_alarm_on_clean_sets(tmp_path: Path, fast: bool) -> None:
    flags = ["--fast"] if fast else []
    coco_set(tmp_path / "coco")
    ade_set(tmp_path / "ade")
    for found in (check_coco(tmp_path / "coco", *flags), check_ade(tmp_path / "ade", *flags)):
        assert (found.code, found.faults, found.warnings) == (0, set(), set())


@pytest.mark.parametrize("planted", [*COCO_FILES, *COCO_ENTRIES], indirect=True)
def test_a_fault_in_coco_files_is_found_and_no_other(planted: tuple[str, Path]) -> None:
    kind, folder = planted
    found = check_coco(folder)
    assert found.code == 1
    assert found.faults == {kind}


@pytest.mark.parametrize("planted_ade", ADE, indirect=True)
def test_a_fault_in_label_maps_is_found_and_no_other(planted_ade: tuple[str, Path]) -> None:
    kind, folder = planted_ade
    found = check_ade(folder)
    assert found.code == 1
    assert found.faults == {kind}


def test_every_kind_of_fault_is_planted() -> None:
    planted = {kind for table in (COCO_FILES, COCO_ENTRIES, ADE) for kind, _ in table.values()}
    assert planted == {kind for kind in KINDS if KINDS[kind].fails}


WARNINGS: dict[str, tuple[str, Plant]] = {
    "an image without objects": (
        "image-bare",
        both(save("images/d.jpg", picture(4)), more("images", id=9, file_name="d.jpg")),
    ),
    "a category of nothing": ("category-unused", more("categories", id=9, name="nut")),
    "an object twice": ("annotation-twice", more("annotations", id=99)),
    "a box below a pixel": ("box-tiny", note(bbox=[5, 5, 0.5, 9])),
    "corners for a box": ("box-off-mask", note(bbox=[6, 6, 56, 40])),
    "no mask": ("mask-missing", note(segmentation=[])),
    "an image on its head": ("image-rotated", save("images/a.jpg", picture(0), exif=exif(3))),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_is_told_and_fails_nothing(name: str, tmp_path: Path) -> None:
    kind, plant = WARNINGS[name]
    ann = coco_set(tmp_path)
    content = json.loads(ann.read_text())
    plant(content, tmp_path)
    ann.write_text(json.dumps(content))
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
    assert probe(tmp_path / "images/a.jpg", fast=True).trouble == "truncated"


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
    assert "and 2 more" in text and "images[1] b.png" in text
    assert "3 images, 5 annotations, 2 categories" in text
    assert re.search(r"date +3 instances in 3 images", text)

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


# ---- cleaned copies ----


def recheck(folder: Path, cleaned: Path) -> tuple[Checked, Content]:
    content = json.loads((cleaned / "all.json").read_text())
    return check_coco(folder, ann=str(cleaned / "all.json")), content


def places(found: Checked) -> set[int]:
    """The annotations that have a fault."""
    told = [
        place["place"] for kind in found.report["sets"][0]["faults"] for place in kind["places"]
    ]
    return {int(number) for number in re.findall(r"annotations\[(\d+)\]", " ".join(told))}


@pytest.mark.parametrize("planted", COCO_ENTRIES, indirect=True)
def test_a_cleaned_coco_file_has_no_faults_and_what_was_good(
    planted: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, folder = planted
    before = snapshot(folder)
    cleaned = tmp_path_factory.mktemp("cleaned")
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
    "a box beyond the top": {"bbox": [6, 0, 20, 26]},
    "no area": {"area": 400.0},
    "a polygon outside": {"segmentation": [[1.0, 1.0, 64.0, 1.0, 9.0, 40.0]]},
    "annotation id twice": {"id": 6},
}


@pytest.mark.parametrize("planted, wanted", MENDED.items(), indirect=["planted"])
def test_what_is_certain_is_mended(
    planted: tuple[str, Path],
    wanted: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cleaned = tmp_path_factory.mktemp("cleaned")
    check_coco(planted[1], "--fix", str(cleaned))
    content = recheck(planted[1], cleaned)[1]
    assert len(content["annotations"]) == 5
    mended = [each for each in content["annotations"] if wanted.items() <= each.items()]
    assert mended


@pytest.mark.parametrize("planted", ["image file twice", "category name twice"], indirect=True)
def test_what_is_there_twice_becomes_one(
    planted: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    _, folder = planted
    content = json.loads((folder / "all.json").read_text())
    key, number = ("image_id", 99) if len(content["images"]) == 4 else ("category_id", 8)
    content["annotations"][0][key] = number  # of the second entry
    (folder / "all.json").write_text(json.dumps(content))
    cleaned = tmp_path_factory.mktemp("cleaned")
    check_coco(folder, "--fix", str(cleaned))
    found, content = recheck(folder, cleaned)
    assert found.code == 0
    assert content["annotations"][0] == square(1, 0, 3)
    assert (len(content["images"]), len(content["categories"])) == (3, 2)


@pytest.mark.parametrize(
    "planted, images, categories",
    [
        ("image entry twice", [0, 1, 2], [3, 7]),
        ("image id twice", [1, 2], [3, 7]),
        ("category id twice", [0, 1, 2], [7]),
    ],
    indirect=["planted"],
)
def test_nothing_is_kept_of_an_id_that_may_be_either(
    planted: tuple[str, Path],
    images: list[int],
    categories: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    cleaned = tmp_path_factory.mktemp("cleaned")
    check_coco(planted[1], "--fix", str(cleaned))
    content = recheck(planted[1], cleaned)[1]
    assert [each["id"] for each in content["images"]] == images
    assert [each["id"] for each in content["categories"]] == categories


@pytest.mark.parametrize("planted_ade", ADE, indirect=True)
def test_good_pairs_are_linked(
    planted_ade: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind, folder = planted_ade
    cleaned = tmp_path_factory.mktemp("parent") / "cleaned"
    check_ade(folder, "--fix", str(cleaned))
    found = check_ade(cleaned)
    assert (found.code, found.faults) == (0, set())
    names = {path.name for path in (cleaned / "images/training").iterdir()}
    mended = kind == "image-suffix"
    assert names == {"scene.0.jpg", "scene.2.jpg"} | ({"scene.1.jpg"} if mended else set())
    assert (cleaned / "images/training/scene.0.jpg").is_symlink()
    assert len([*(cleaned / "annotations/validation").iterdir()]) == 3


@pytest.mark.parametrize("planted", ["JSON cut short", "a list"], indirect=True)
def test_what_cannot_be_cleaned_leaves_nothing(planted: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"all\.json is no COCO file"):
        where = f"--ann {planted[1]}/all.json --images {planted[1]}/images"
        prepare_data.main(f"check --format coco {where} --fix {tmp_path}/cleaned".split())
    assert not (tmp_path / "cleaned").exists()
    assert not [*tmp_path.glob(".cleaned*")]


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
    lines = [line.partition("  #")[0] for line in capsys.readouterr().out.splitlines()]
    block = "\n".join(f"    {line}" for line in lines)
    assert block in (Path(prepare_data.__file__).parents[1] / "docs/tools.md").read_text()


def test_download_quotes_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    prepare_data.main(["download", "ade20k", "--root", "my data"])
    printed = capsys.readouterr().out
    assert "cd 'my data'" in printed
    assert "--root 'my data/ADEChallengeData2016'" in printed


# ---- as a command ----


def test_the_command_exits_with_the_check_and_shows_no_traceback(tmp_path: Path) -> None:
    coco_set(tmp_path)
    (tmp_path / "images/a.jpg").unlink()
    tool = Path(prepare_data.__file__)
    where = ("--root", str(tmp_path), "--ann", "all.json", "--images", "images")
    command = [sys.executable, str(tool), "check", "--format", "coco", *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 1
    assert "image-missing (1)" in done.stdout
    assert "Traceback" not in done.stderr
