"""prepare_data.py convert: nothing of a set is lost without being named, nothing broken gets by."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import annotation_copies as copies
import numpy as np
import pytest
from annotation_copies import BOXES, NAMES, PARTS, POLYGONS, SPLITS, WRITERS, Things
from PIL import Image
from pycocotools.coco import COCO

from agent_toolkit.commands import data as prepare_data
from mmdet_agent.data.convert import write_set
from mmengine_agent.data.convert import changes, read_set
from mmengine_agent.data.formats import FORMATS, guess_format
from mmengine_agent.errors import UserError

ROUND_TRIPS = [
    *((form, BOXES) for form in WRITERS),
    *((form, POLYGONS) for form in ("yolo", "labelme", "cvat")),
    *((form, PARTS) for form in ("labelme", "cvat")),
]


def convert(form: str, root: Path, *more: str) -> Path:
    """The folder of COCO files made of a set."""
    out = root.with_name(f"{root.name}-coco")
    where = ("--from", form, "--root", str(root), "--to", "coco", "--out", str(out))
    prepare_data.main(["convert", *where, *more])
    return out


def found(out: Path) -> dict[str, list[tuple[str, Any, Any]]]:
    """Of each image (name, segmentation, box) of its objects, in their order."""
    objects: dict[str, list[tuple[str, Any, Any]]] = {}
    for path in out.glob("*.json"):
        content = json.loads(path.read_text())
        names = {each["id"]: each["name"] for each in content["categories"]}
        for image in content["images"]:
            name = Path(image["file_name"]).stem
            assert path.stem in (SPLITS[name], "all")
            assert (image["width"], image["height"]) == (copies.WIDTH, copies.HEIGHT)
            objects[name] = [
                (names[each["category_id"]], each["segmentation"], each["bbox"])
                for each in content["annotations"]
                if each["image_id"] == image["id"]
            ]
    return objects


@pytest.mark.parametrize(("form", "things"), ROUND_TRIPS)
def test_boxes_polygons_and_names_come_back(form: str, things: Things, tmp_path: Path) -> None:
    root = tmp_path / "set"
    WRITERS[form](root, things)
    got = found(convert(form, root))
    assert got.keys() == things.keys()
    for name, objects in things.items():
        assert [each for each, *_ in got[name]] == [thing.name for thing in objects]
        for (_, mask, box), thing in zip(got[name], objects, strict=True):
            assert len(mask) == len(thing.parts)
            for part, wanted in zip(mask, thing.parts, strict=True):
                assert part == pytest.approx(wanted, abs=1e-3)
            if thing.box:
                assert box == pytest.approx(thing.box, abs=1e-3)


@pytest.mark.parametrize("form", WRITERS)
def test_a_converted_set_has_no_faults_and_says_what_comes_next(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    WRITERS[form](root, BOXES)
    out = convert(form, root)
    said = capsys.readouterr().out
    assert "nothing was left out" in said
    name = "all" if form == "labelme" else "train"
    command = f"check --format coco --ann {out / name}.json --images {root}"
    assert command in said
    with pytest.raises(SystemExit) as ended:
        prepare_data.main(command.split())
    assert ended.value.code == 0


@pytest.mark.parametrize("form", WRITERS)
def test_the_form_of_a_folder_is_recognised(form: str, tmp_path: Path) -> None:
    WRITERS[form](tmp_path / form, POLYGONS if form != "voc" else BOXES)
    assert guess_format(tmp_path / form) == form
    convert(form, tmp_path / form)
    assert guess_format(tmp_path / f"{form}-coco") is None


# by format: a file, what is replaced in it and by what, and what a message must name
BROKEN: list[tuple[str, str, str, str, list[str]]] = [
    ("yolo", "labels/train/a.txt", "0.403125", "x", ["a.txt:1"]),
    ("yolo", "labels/train/a.txt", "\n1 ", "\n3 ", ["a.txt:2", "class 3", "0..2"]),
    ("yolo", "labels/train/a.txt", "\n1 ", "\n1.5 ", ["a.txt:2", "class 1.5"]),
    ("yolo", "labels/train/a.txt", "0.403125", "44", ["a.txt:1", "fractions"]),
    ("yolo", "labels/train/a.txt", "0.403125", "", ["a.txt:1", "4 numbers"]),
    ("yolo", "labels/train/a.txt", "0.403125", "nan", ["a.txt:1"]),
    ("yolo", "data.yaml", "  1:", "  x:", ["names' numbers are [0, 'x', 2]"]),
    ("yolo", "data.yaml", "images/val", "images/nowhere", ["val", "images/nowhere"]),
    ("voc", "Annotations/a.xml", "<xmin>10.0", "<xmin>x", ["a.xml:2", "x"]),
    ("voc", "Annotations/a.xml", "<xmin>10.0</xmin>", "", ["a.xml:2", "xmin"]),
    ("voc", "Annotations/a.xml", "<xmax>30.0", "<xmax>3.0", ["a.xml:2", "without width"]),
    ("voc", "Annotations/a.xml", "<width>1", "<width>2", ["a.xml", "200", "100"]),
    ("voc", "Annotations/a.xml", "</annotation>", "", ["a.xml", "no XML"]),
    ("voc", "ImageSets/Main/val.txt", "c", "d", ["val.txt", "d"]),
    ("labelme", "a.json", '"points": [[10.0', '"points": [["x"', ["a.json: shapes[0]"]),
    ("labelme", "a.json", '"shapes"', '"shape"', ["a.json", "no LabelMe"]),
    ("labelme", "a.json", "{", "[" * 9999, ["a.json", "no LabelMe"]),
    ("labelme", "a.json", "rectangle", "star", ["a.json: shapes[0]", "star"]),
    ("labelme", "b.json", '"b.jpg"', '"d.jpg"', ["b.json", "d.jpg"]),
    ("cvat", "annotations.xml", "xtl='10.0'", "xtl='x'", ["annotations.xml:3", "x"]),
    ("cvat", "annotations.xml", 'label="tree"', "", ["annotations.xml:3", "without a label"]),
    ("cvat", "annotations.xml", "z_order='0'", "z_order='x'", ["annotations.xml:2", "x"]),
    ("cvat", "annotations.xml", "<annotations>", "<video>", ["annotations.xml"]),
    ("cvat", "annotations.xml", "b.jpg", "d.jpg", ["annotations.xml:6", "d.jpg"]),
]


@pytest.mark.parametrize(("form", "file", "old", "new", "wanted"), BROKEN)
def test_what_is_broken_is_named_and_nothing_is_written(
    form: str, file: str, old: str, new: str, wanted: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "set"
    WRITERS[form](root, BOXES)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        convert(form, root)
    for words in wanted:
        assert words in str(error.value)
    assert not (tmp_path / "set-coco").exists()


DOCTYPES = {
    "entities": '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><annotation>&b;',
    "a file": '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("text", DOCTYPES.values(), ids=DOCTYPES)
def test_xml_with_entities_is_refused(text: str, encoding: str, tmp_path: Path) -> None:
    copies.write_voc(tmp_path, BOXES)
    path = tmp_path / "Annotations/a.xml"
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    path.write_bytes(f"{head}{text}</annotation>".encode(encoding))
    with pytest.raises(UserError, match=r"a\.xml.*document type"):
        read_set("voc", tmp_path, ())


def shape(kind: str, points: Any, **more: Any) -> dict[str, Any]:
    return {"label": "tree", "points": points, "shape_type": kind, **more}


def png_text(mask: np.ndarray) -> str:
    Image.fromarray(mask.astype(np.uint8) * 255).save(file := BytesIO(), "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_what_labelme_has_and_coco_has_not_is_counted_with_its_place(tmp_path: Path) -> None:
    copies.write_labelme(tmp_path, BOXES)
    mask = np.eye(6, 8, dtype=bool)
    content = json.loads((tmp_path / "b.json").read_text())
    content["shapes"] = [
        shape("line", [[1, 2], [3, 4]]),
        shape("line", [[1, 2], [3, 4]]),
        shape("point", [[1, 2]]),
        shape("circle", [[50, 40], [60, 40]]),
        shape("mask", [[20, 30], [27, 35]], mask=png_text(mask), description="old"),
    ]
    (tmp_path / "b.json").write_text(json.dumps(content))
    source = read_set("labelme", tmp_path, ())
    said = "\n".join(changes(source.notes))
    assert f"type line, which have no area: left out: 2, first {tmp_path / 'b.json'}" in said
    assert "type point" in said and "circles" in said
    out = tmp_path / "out"
    out.mkdir()
    write_set(source, out)
    coco = COCO(out / "all.json")
    circle, drawn = coco.loadAnns(coco.getAnnIds(imgIds=[2]))
    assert circle["area"] == pytest.approx(np.pi * 100, rel=0.01)
    whole = np.zeros((copies.HEIGHT, copies.WIDTH), bool)
    whole[30:36, 20:28] = mask
    assert (coco.annToMask(drawn) == whole).all()
    assert drawn["bbox"] == [20, 30, 6, 6] and drawn["area"] == 6
    assert drawn["attributes"] == {"description": "old"}


def test_what_cvat_has_and_coco_has_not_is_counted_with_its_place(tmp_path: Path) -> None:
    copies.write_cvat(tmp_path, BOXES)
    path = tmp_path / "annotations.xml"
    tree = "label='tree' occluded='1'"
    new = [
        "<tag label='tree'/>",
        f"<points {tree} points='1,2'/>",
        f"<mask {tree} rle='1,2,3' left='10' top='20' width='3' height='2'/>",
        f"<box {tree} xtl='40' ytl='30' xbr='60' ybr='50' rotation='90'>",
        "<attribute name='age'>old</attribute></box>",
        "</image>",
    ]
    head, _, tail = path.read_text().partition("name='b.jpg'")
    path.write_text(f"{head}name='b.jpg'" + tail.replace("</image>", "\n".join(new), 1))
    source = read_set("cvat", tmp_path, ())
    said = "\n".join(changes(source.notes))
    for words in ("<tag> of images: left out: 1", "<points>", "turned boxes"):
        assert words in said
    mask, turned = source.pictures[1].shapes
    assert turned.attributes == {"age": "old", "occluded": 1}
    assert sorted(turned.polygons[0]) == pytest.approx([30, 30, 40, 40, 50, 50, 60, 60], abs=1e-3)
    assert mask.mask is not None and sum(mask.mask["counts"][1::2]) == 2


def test_difficult_objects_of_voc_are_crowds_and_its_devkit_counts_from_1(tmp_path: Path) -> None:
    copies.write_voc(tmp_path, BOXES)
    path = tmp_path / "Annotations/c.xml"
    more = "<source><database>The VOC2007 Database</database></source>"
    text = path.read_text().replace("<filename>", f"{more}<filename>")
    path.write_text(text.replace("<bndbox>", "<difficult>1</difficult><part/><bndbox>"))
    source = read_set("voc", tmp_path, ())
    (thing,) = source.pictures[2].shapes
    assert thing.crowd and thing.attributes == {"difficult": 1}
    assert thing.box == [49.25, 7, 21.25, 53.75]
    said = "\n".join(changes(source.notes))
    assert "difficult objects: iscrowd 1" in said and "<part> of objects: left out" in said


def test_classes_choose_and_the_rest_is_counted(tmp_path: Path) -> None:
    copies.write_labelme(tmp_path / "set", BOXES)
    source = read_set("labelme", tmp_path / "set", ["tree", "traffic light"])
    assert source.names == ["tree", "traffic light"]
    assert "--classes does not name: left out: 1" in "\n".join(changes(source.notes))


def test_yolo_without_yaml_has_names_from_a_file_and_lists_of_images(tmp_path: Path) -> None:
    copies.write_yolo(tmp_path, BOXES)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(UserError, match="no class names"):
        read_set("yolo", tmp_path, ())
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    (tmp_path / "labels/train/a.txt").open("a").write("2 0.5 0.5 0.1 0.1 0.99\n")
    (tmp_path / "labels/train/b.txt").unlink()
    (tmp_path / "labels/train/d.txt").write_text("")
    source = read_set("yolo", tmp_path, ())
    assert (source.names, source.splits) == ([*NAMES], ["train", "val"])
    said = "\n".join(changes(source.notes))
    for words in ("scores of predictions", "without a label file", "without an image"):
        assert words in said


@pytest.mark.parametrize("background", [(), ("--background", "floor")])
def test_polygons_are_painted_into_label_maps(background: tuple[str, ...], tmp_path: Path) -> None:
    copies.write_cvat(tmp_path / "set", PARTS)
    where = ("--from", "cvat", "--root", str(tmp_path / "set"), "--to", "ade20k")
    prepare_data.main(["convert", *where, "--out", str(tmp_path / "ade"), *background])
    names = (tmp_path / "ade/classes.txt").read_text().splitlines()
    assert names == [*background[1:], *NAMES]
    labels = np.asarray(Image.open(tmp_path / "ade/annotations/training/a.png"))
    assert labels[0, 0] == len(names) - 3  # nothing, or the background
    assert labels[30, 20] == names.index("tree") + 1  # in SQUARE
    assert labels[30, 55] == names.index("car & cab") + 1  # in ARROW
    assert (tmp_path / "ade/images/validation/c.jpg").is_file()


def test_every_format_has_a_copy_or_a_test_of_its_own() -> None:
    assert FORMATS.keys() == WRITERS.keys() | {"cityscapes"}
