"""tools/predict.py from end to end: its inputs, what it writes, and its mistakes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from helpers import SMALL, seed_weights
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from agent_toolkit.commands import predict as tool
from mmengine_agent.errors import UserError
from mmengine_agent.predict.classes import classes_of
from mmengine_agent.predict.model import Predictor, build_model, load_model
from mmengine_agent.predict.output import write_video
from mmengine_agent.run.exit import run_tool
from mmengine_agent.run.setup import read_config

ROOT = Path(__file__).parents[1]
CONFIGS = {
    "detection": "agent_pvt_maskrcnn_demo.py",
    "segmentation": "agent_pvt_semantic_fpn_demo.py",
}
SHAPES = ("ellipse", "rectangle", "triangle", "star", "cross")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """An image (height, width, 3) of coloured blots."""
    small = np.random.RandomState(seed).randint(0, 256, (height // 8, width // 8, 3))
    return cv2.resize(small.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


# ---- a model ----


class Model:
    """A demo's model with a small backbone and seeded weights: its config and checkpoint."""

    def __init__(self, task: str, folder: Path) -> None:
        self.task, self.config = task, folder / f"{task}.py"
        arch = dict(SMALL, _delete_=True)
        changes: dict[str, Any] = {"backbone": {"arch": arch}}
        changes["neck"] = {"in_channels": [*SMALL["embed_dims"]]}
        if task == "detection":  # a few objects are enough
            few = {"nms_pre": 50, "max_per_img": 50}
            changes["test_cfg"] = {"rpn": few, "rcnn": {"max_per_img": 8}}
        self.config.write_text(
            f"_base_ = {str(ROOT / 'configs/demo' / CONFIGS[task])!r}\nmodel = {changes!r}\n"
        )
        self.cfg = read_config(str(self.config))
        self.cfg.dump(self.config)  # reading mmdet's bases takes longer than predicting
        self.checkpoint = folder / f"{task}.pth"
        weights = seed_weights(build_model(self.cfg)).state_dict()
        torch.save({"state_dict": weights, "meta": {}}, self.checkpoint)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    return {task: Model(task, folder) for task in CONFIGS}


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest, models: dict[str, Model]) -> Model:
    return models[request.param]


@pytest.fixture
def detector(models: dict[str, Model]) -> Model:
    return models["detection"]


@pytest.fixture
def segmentor(models: dict[str, Model]) -> Model:
    return models["segmentation"]


Run = Callable[..., Path]


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Calls the tool on inputs, with flags; the folder of what it wrote."""

    def call(model: Model, *arguments: Any, out: str = "out") -> Path:
        what = [model.config, model.checkpoint, *arguments, "--device", "cpu"]
        argv = ["predict.py", *map(str, what), "--out", str(tmp_path / out)]
        monkeypatch.setattr(sys, "argv", argv)
        tool.main()
        return tmp_path / out

    return call


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


def results(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "predictions.json").read_text())


def label_map(path: Path) -> np.ndarray:
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert found is not None and found.ndim == 2
    return found


# ---- the tool ----


def test_objects_are_written_as_coco_results_and_drawn(
    detector: Model, predict: Run, tmp_path: Path
) -> None:
    photos = [write(tmp_path / f"photos/{i}.png", noise(72 + 24 * i, 96, i)) for i in range(2)]
    out = predict(detector, tmp_path / "photos", "--score-thr", 0)
    found = results(out)
    coco = COCO(out / "images.json")
    assert [image["file_name"] for image in coco.dataset["images"]] == [*map(str, photos)]
    assert [image["height"] for image in coco.dataset["images"]] == [72, 96]
    assert [each["name"] for each in coco.dataset["categories"]] == [*SHAPES]
    assert {each["image_id"] for each in found} == {1, 2}
    again = coco.loadRes(found)
    for each in found:
        image = coco.loadImgs(each["image_id"])[0]
        assert 0 < each["score"] <= 1 and each["category_id"] in range(1, 6)
        x, y, width, height = each["bbox"]
        assert -0.01 <= x <= x + width <= image["width"] + 0.01
        assert -0.01 <= y <= y + height <= image["height"] + 0.01
        assert again.annToMask(each).shape == (image["height"], image["width"])
    for path in photos:
        drawn = cv2.imread(str(out / "drawn" / path.name))
        assert drawn.shape == cv2.imread(str(path)).shape
        assert (drawn != cv2.imread(str(path))).any()


def test_the_least_score_counts(detector: Model, predict: Run, tmp_path: Path) -> None:
    photo = write(tmp_path / "photo.png", noise(96, 96))
    scores = [each["score"] for each in results(predict(detector, photo, "--score-thr", 0))]
    middle = sorted(scores)[len(scores) // 2]
    some = results(predict(detector, photo, "--score-thr", middle + 5e-6))
    assert [each["score"] for each in some] == [score for score in scores if score > middle]


def test_category_ids_are_those_of_the_annotation_file(
    detector: Model, predict: Run, tmp_path: Path
) -> None:
    photo = write(tmp_path / "photo.png", noise(96, 96))
    listed = [{"id": 3 * i + 5, "name": name} for i, name in enumerate(reversed(SHAPES))]
    content = {"images": [], "annotations": [], "categories": [*listed, {"id": 1, "name": "x"}]}
    (tmp_path / "ann.json").write_text(json.dumps(content))
    setting = f"test_dataloader.dataset.ann_file={tmp_path / 'ann.json'}"
    out = predict(detector, photo, "--score-thr", 0, "--cfg-options", setting)
    categories = json.loads((out / "images.json").read_text())["categories"]
    assert [{"id": e["id"], "name": e["name"]} for e in categories] == listed[::-1]
    ids = {each["category_id"] for each in results(out)}
    assert ids and ids <= {5, 8, 11, 14, 17}


def test_the_80_classes_of_coco_have_its_ids() -> None:
    cfg = read_config(str(ROOT / "configs/agent_pvt_maskrcnn.py"))
    classes = classes_of(cfg, {}, None)
    ids = dict(zip(classes.names, classes.ids, strict=True))
    assert (ids["person"], ids["stop sign"], ids["toothbrush"]) == (1, 13, 90)
    assert len(ids) == 80


def test_label_maps_have_the_numbers_of_the_data_set(
    segmentor: Model, predict: Run, tmp_path: Path
) -> None:
    image = noise(80, 112)
    out = predict(segmentor, write(tmp_path / "photo.jpg", image))
    listing = json.loads((out / "images.json").read_text())
    assert [each["id"] for each in listing["categories"]] == [*range(1, 9)]  # 0 is ignored
    labels = label_map(out / "labels/photo.png")
    assert len(np.unique(labels)) > 1

    model = load_model(segmentor.cfg, str(segmentor.checkpoint), torch.device("cpu"))[0]
    predictor = Predictor(model, segmentor.cfg)
    (sample,) = predictor([predictor.load(tmp_path / "photo.jpg")])
    np.testing.assert_array_equal(labels, sample.pred_sem_seg.data[0].numpy() + 1)
    assert (cv2.imread(str(out / "drawn/photo.jpg")) != image).any()
    assert cv2.imread(str(out / "legend.png")) is not None


def test_tiles_are_predicted_as_images_of_their_own(
    model: Model, predict: Run, tmp_path: Path
) -> None:
    parts = [write(tmp_path / f"parts/{i}.png", noise(64, 64, i)) for i in range(6)]
    rows = [np.hstack([cv2.imread(str(path)) for path in parts[i : i + 3]]) for i in (0, 3)]
    mosaic = write(tmp_path / "mosaic.png", np.vstack(rows))
    flags = ("--score-thr", 0, "--no-draw")
    alone = predict(model, tmp_path / "parts", *flags, out="alone")
    tiled = predict(model, mosaic, *flags, "--tile", 64, "--overlap", 0, out="tiled")
    if model.task == "segmentation":
        maps = [label_map(alone / f"labels/{i}.png") for i in range(6)]
        whole = np.vstack([np.hstack(maps[:3]), np.hstack(maps[3:])])
        np.testing.assert_array_equal(label_map(tiled / "labels/mosaic.png"), whole)
    else:
        wanted = [in_mosaic(each) for each in results(alone)]
        key = json.dumps
        assert sorted(wanted, key=key) == sorted(results(tiled), key=key)


def in_mosaic(record: dict[str, Any]) -> dict[str, Any]:
    """A result of one of six parts of 64 x 64 pixels, in a mosaic of two rows of three."""
    y, x = (64 * place for place in divmod(record["image_id"] - 1, 3))
    left, top, width, height = record["bbox"]
    mask = np.zeros((128, 192), np.uint8, order="F")
    mask[y : y + 64, x : x + 64] = coco_mask.decode(record["segmentation"])
    code = coco_mask.encode(mask)
    return {
        **record,
        "image_id": 1,
        "bbox": [round(left + x, 2), round(top + y, 2), width, height],
        "segmentation": {**code, "counts": code["counts"].decode()},
    }


def test_overlapping_tiles_are_predicted_and_drawn(
    model: Model, predict: Run, tmp_path: Path
) -> None:
    image = noise(120, 200)
    photo = write(tmp_path / "photo.png", image)
    flags = ("--tile", 64, "--overlap", 16, "--batch-size", 3, "--score-thr", 0)
    out = predict(model, photo, *flags)
    drawn = cv2.imread(str(out / "drawn/photo.png"))
    assert drawn.shape == image.shape
    changed = (drawn != image).any(2)
    assert all(changed[y : y + 60, x : x + 50].any() for y in (0, 60) for x in (0, 50, 100, 150))
    if model.task == "segmentation":
        assert (label_map(out / "labels/photo.png") >= 1).all()
    else:
        assert {tuple(each["segmentation"]["size"]) for each in results(out)} == {(120, 200)}


def test_batches_change_nothing(model: Model, predict: Run, tmp_path: Path) -> None:
    for i, size in enumerate([(64, 96), (96, 64), (64, 96)]):
        write(tmp_path / f"photos/{i}.png", noise(*size, i))
    both = [
        predict(model, tmp_path / "photos", "--batch-size", n, "--score-thr", 0, out=f"by{n}")
        for n in (1, 3)
    ]
    if model.task == "segmentation":
        for i in range(3):
            one, other = (label_map(out / f"labels/{i}.png") for out in both)
            assert (one != other).mean() < 0.001  # sums in another order
    else:
        one, other = (results(out) for out in both)
        for a, b in zip(one, other, strict=True):
            assert (a["image_id"], a["category_id"]) == (b["image_id"], b["category_id"])
            assert a["bbox"] == pytest.approx(b["bbox"], abs=0.05)


def test_a_video_becomes_a_video_and_results_of_each_frame(
    model: Model, predict: Run, tmp_path: Path
) -> None:
    with write_video(tmp_path / "clip.mp4", 10, (64, 96, 3)) as add:
        for i in range(3):
            add(noise(64, 96, i))
    out = predict(model, tmp_path / "clip.mp4", "--score-thr", 0)
    listing = json.loads((out / "images.json").read_text())
    assert [each["frame"] for each in listing["images"]] == [0, 1, 2]
    drawn = cv2.VideoCapture(str(out / "drawn/clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FPS) == 10
    frames = [drawn.read()[1] for _ in range(4)]
    assert [frame is not None and frame.shape for frame in frames] == [(64, 96, 3)] * 3 + [False]
    if model.task == "segmentation":
        names = sorted(path.name for path in (out / "labels/clip").iterdir())
        assert names == ["000000.png", "000001.png", "000002.png"]
    else:
        assert {each["image_id"] for each in results(out)} == {1, 2, 3}


def test_files_of_one_name_do_not_meet(segmentor: Model, predict: Run, tmp_path: Path) -> None:
    photos = [write(tmp_path / name, noise(64, 64)) for name in ("a/x.png", "b/x.png", "b/x.jpg")]
    out = predict(segmentor, *photos)
    assert {path.name for path in (out / "labels").iterdir()} == {"x.png", "x_2.png", "x_3.png"}
    assert {path.name for path in (out / "drawn").iterdir()} == {"x.png", "x_2.png", "x_3.jpg"}


def test_what_is_not_wanted_is_not_written(model: Model, predict: Run, tmp_path: Path) -> None:
    photo = write(tmp_path / "photo.png", noise(64, 64))
    names = {"detection": "predictions.json", "segmentation": "labels"}
    drawn = {"detection": {"drawn"}, "segmentation": {"drawn", "legend.png"}}[model.task]
    plain = predict(model, photo, "--no-draw", out="plain")
    assert {path.name for path in plain.iterdir()} == {"images.json", names[model.task]}
    pictures = predict(model, photo, "--no-results", out="pictures")
    assert {path.name for path in pictures.iterdir()} == {"images.json", *drawn}


def test_names_of_classes_come_from_the_user_the_checkpoint_or_the_config(model: Model) -> None:
    count = 5 if model.task == "detection" else 8
    own, given = [f"own{i}" for i in range(count)], [f"given{i}" for i in range(count)]
    meta = {"dataset_meta": {"classes": own, "palette": [[i, 0, 0] for i in range(count)]}}
    assert classes_of(model.cfg, meta, given).names == tuple(given)
    assert classes_of(model.cfg, meta, None).names == tuple(own)
    assert classes_of(model.cfg, meta, None).colours[2] == (2, 0, 0)
    old = {"CLASSES": own}  # as OpenMMLab 1 and 2 wrote it
    assert classes_of(model.cfg, old, None).names == tuple(own)
    assert classes_of(model.cfg, {}, None).names[-1] == "cross"
    meta["dataset_meta"]["classes"] = own[:3]  # of another model
    assert classes_of(model.cfg, meta, None).names[-1] == "cross"


# ---- mistakes ----


def test_good_inputs_are_finished_and_bad_ones_named(
    detector: Model, predict: Run, tmp_path: Path
) -> None:
    good = [write(tmp_path / f"photos/{name}.png", noise(64, 64)) for name in "ac"]
    (tmp_path / "photos/b.png").write_text("no image")
    (tmp_path / "photos/d.mp4").write_text("no video")
    with pytest.raises(UserError) as error:
        predict(detector, tmp_path / "photos", tmp_path / "none.jpg")
    lines = str(error.value).splitlines()
    assert lines[0].startswith("3 inputs")
    assert sorted(line.rpartition("/")[2].partition(":")[0] for line in lines[1:]) == [
        "b.png",
        "d.mp4",
        "none.jpg",
    ]
    listing = json.loads((tmp_path / "out/images.json").read_text())
    assert [each["file_name"] for each in listing["images"]] == [*map(str, good)]
    assert {path.name for path in (tmp_path / "out/drawn").iterdir()} == {"a.png", "c.png"}
    assert not [*(tmp_path / "out").rglob("*.part*")]


def test_nothing_is_left_of_a_run_that_fails(
    detector: Model, predict: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = write(tmp_path / "photo.png", noise(64, 64))

    def fail(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch.nn.Module, "__call__", fail)
    with pytest.raises(UserError, match="--tile"):
        predict(detector, photo)
    assert not (tmp_path / "out").exists()


# flags, and what the message must name
MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "no checkpoint": (["{photo}"], ["there is no checkpoint no.pth"]),
    "no input": (["nowhere/x.jpg"], ["nowhere/x.jpg"]),
    "an empty batch": (["{photo}", "--batch-size", "0"], ["--batch-size", "0"]),
    "overlap of nothing": (["{photo}", "--overlap", "8"], ["--overlap", "--tile"]),
    "all overlap": (["{photo}", "--tile", "64", "--overlap", "64"], ["--overlap", "64"]),
    "tiny tiles": (["{photo}", "--tile", "8"], ["--tile", "32"]),
    "nothing to write": (["{photo}", "--no-draw", "--no-results"], ["--no-draw", "--no-results"]),
    "too few classes": (["{photo}", "--classes", "a", "b"], ["5 classes", "names for 2"]),
    "no list of classes": (["{photo}", "--classes", "no.txt"], ["--classes", "no.txt"]),
    "no such device": (["{photo}", "--device", "abacus"], ["--device", "abacus"]),
    "an output in the way": (["{photo}", "--out", "{photo}"], ["--out", "{photo}"]),
    "another config": (["{photo}", "--cfg-options", "model.neck.out_channels=48"], ["fit"]),
    "no such model": (["{photo}", "--cfg-options", "model.type=NoSuch"], ["NoSuch"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_1(
    mistake: str, detector: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    photo = write(tmp_path / "photo.png", noise(64, 64))
    flags, wanted = MISTAKES[mistake]
    arguments = [str(detector.config), str(detector.checkpoint), *flags]
    if mistake == "no checkpoint":
        arguments[1] = "no.pth"
    argv = ["predict.py", *(each.format(photo=photo) for each in arguments)]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as done:
        run_tool(tool.main)
    message = capsys.readouterr().err
    assert done.value.code == 1
    assert message.count("error: ") == 1 and "Traceback" not in message
    for words in wanted:
        assert words.format(photo=photo) in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png"]
