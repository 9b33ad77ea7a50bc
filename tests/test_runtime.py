"""Exported files run on NumPy, Pillow and ONNX Runtime alone, as OpenMMLab runs the models."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import pytest
from helpers import run_without
from PIL import Image
from small_exports import (
    BOXES,
    CLASSES,
    write_detector,
    write_segmentor,
    write_segmentor_of_pictures,
)

from agent_attention.runtime import Model, RuntimeUserError
from agent_attention.runtime.__main__ import main
from agent_attention.runtime.images import read_image, resize


def noise(height: int, width: int) -> np.ndarray:
    return np.random.randint(0, 256, (height, width, 3), np.uint8)


# --- images


def test_resizing_is_opencvs_bit_for_bit() -> None:
    for _ in range(40):
        height, width, new_height, new_width = np.random.randint(1, 300, 4).tolist()
        image, size = noise(height, width), (new_width, new_height)
        assert np.array_equal(resize(image, *size), cv2.resize(image, size))
        values = np.random.rand(height, width, 4).astype(np.float32)
        found = resize(values, *size)
        assert np.allclose(found, cv2.resize(values, size), atol=1e-3)
        assert np.array_equal(resize(values, *size, slice(1, 9)), found[1:9])


@pytest.mark.parametrize("kind", ["gray", "turned", "alpha", "16 bits", "jpg"])
def test_files_are_read_as_opencv_reads_them(kind: str, tmp_path: Path) -> None:
    path, image = tmp_path / "image.png", noise(8, 12)
    if kind == "gray":
        Image.fromarray(image[..., 0]).save(path)
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(image).save(path, exif=exif)
    elif kind == "alpha":
        Image.fromarray(np.dstack([image, image[..., :1]])).save(path)
    elif kind == "16 bits":
        cv2.imwrite(str(path), image[..., 0].astype(np.uint16) * 256 + 17)
    else:
        path = tmp_path / "image.jpg"
        Image.fromarray(cv2.resize(image, (90, 70))).save(path)
    assert np.array_equal(read_image(path), cv2.imread(str(path))[..., ::-1])
    assert np.array_equal(read_image(path), read_image(Image.open(path)))


@pytest.mark.parametrize("keep_ratio", [True, False])
def test_sizes_are_those_of_the_test_pipeline(keep_ratio: bool, tmp_path: Path) -> None:
    size = {"scale": [133, 80], "keep_ratio": keep_ratio}
    model = Model(write_segmentor(tmp_path / "m.onnx", test_size=json.dumps(size)))
    step = mmcv.transforms.Resize(scale=(133, 80), keep_ratio=keep_ratio)
    for height, width in np.random.randint(20, 200, (20, 2)).tolist():
        image = noise(height, width)
        wanted = step({"img": image})["img"].transpose(2, 0, 1)
        assert np.array_equal(model.prepare(image), wanted.astype(np.float32))


# --- models


def test_labels_are_those_of_scores_at_the_images_size(tmp_path: Path) -> None:
    size = json.dumps({"scale": [90, 90], "keep_ratio": True})
    model = Model(write_segmentor(tmp_path / "m.onnx", test_size=size))
    image = noise(47, 70)
    small = cv2.resize(image, (90, 60)).astype(np.float32)
    (found,) = model([image])
    assert found.names == CLASSES and found.boxes is None and found.label_map is not None
    assert np.array_equal(found.label_map, cv2.resize(small, (70, 47)).argmax(-1))
    bgr = Model(write_segmentor(tmp_path / "bgr.onnx", input="BGR, 0 to 255"))
    assert np.array_equal(bgr(image[..., ::-1]).label_map, image.argmax(-1))


def test_a_file_that_resizes_gets_the_pixels_as_they_are(tmp_path: Path) -> None:
    model = Model(write_segmentor_of_pictures(tmp_path / "m.onnx"))
    images = [noise(20, 31), noise(20, 31), noise(12, 8)]
    for image, found in zip(images, model(images), strict=True):
        assert np.array_equal(found.label_map, image.argmax(-1))


def test_objects_are_in_pixels_of_the_image(tmp_path: Path) -> None:
    size = json.dumps({"scale": [40, 20], "keep_ratio": False})
    model = Model(write_detector(tmp_path / "m.onnx", test_size=size))
    found = model(noise(80, 80))
    assert found.boxes is not None and found.masks is not None
    assert np.allclose(found.boxes, np.float32(BOXES[:1]) * [2, 4, 2, 4])
    assert np.array_equal(found.labels, [2]) and np.allclose(found.scores, 0.9)
    assert found.masks.shape == (1, 80, 80)
    assert found.masks[0, :40].all() and not found.masks[0, 41:].any()
    assert len(model(noise(80, 80), score_threshold=0.0).boxes) == 2  # one row is filled up
    assert model(noise(80, 80), score_threshold=0.95).masks.shape == (0, 80, 80)


@pytest.mark.parametrize("batch", ["any", "1"])
def test_a_list_gives_what_its_images_give(batch: str, tmp_path: Path) -> None:
    model = Model(write_segmentor(tmp_path / "m.onnx", batch=batch), batch_size=2)
    images: list[Any] = [noise(8, 9), noise(9, 8), noise(8, 9), noise(8, 9)]
    images[1] = Image.fromarray(images[1])
    for image, found in zip(images, model(images), strict=True):
        assert np.array_equal(found.label_map, np.asarray(image).argmax(-1))
    assert model([]) == []


def test_neither_torch_nor_openmmlab_is_needed(tmp_path: Path) -> None:
    path = write_detector(tmp_path / "m.onnx")
    code = f"""
import agent_attention, numpy
from agent_attention.runtime import Model
found = Model({str(path)!r})(numpy.zeros((20, 30, 3), numpy.uint8))
try:
    agent_attention.AgentPVT
except ImportError as error:
    print(found.names[found.labels[0]], error.name, "AgentPVT" in dir(agent_attention))
"""
    blocked = {"torch", "mmengine", "mmcv", "mmdet", "mmseg", "cv2", "onnx", "matplotlib"}
    assert run_without(blocked, code).split() == ["star", "torch", "True"]


# --- the command


def command(*arguments: Any) -> int:
    """Its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["run", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
    if isinstance(stop.value.code, str):  # which the interpreter prints
        print(stop.value.code, file=sys.stderr)
        return 1
    return int(stop.value.code or 0)


def test_the_command_prints_a_line_an_image_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.jpg"):
        Image.fromarray(noise(30, 40)).save(tmp_path / name)
    images = (tmp_path / "a.png", tmp_path / "b.jpg")
    model = write_detector(tmp_path / "detector.onnx")
    assert command(model, *images, "--out", tmp_path / "out", "--score-thr", 0.5) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["image"] == str(images[0]) and first["objects"] == second["objects"]
    assert first["objects"] == [{"name": "star", "score": 0.9, "box": BOXES[0]}]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.jpg", "b.jpg"]
    model = write_segmentor(tmp_path / "segmentor.onnx")
    assert command(model, images[0], "--out", tmp_path / "out") == 0
    shares = json.loads(capsys.readouterr().out)["classes"]
    labels = np.asarray(Image.open(tmp_path / "out/a.labels.png"))
    assert np.array_equal(labels, read_image(images[0]).argmax(-1))
    assert shares["sky"] == pytest.approx((labels == 0).mean(), abs=1e-6)


MISTAKES = {
    "no model": (["none.onnx", "a.png"], "there is no file none.onnx"),
    "no ONNX": (["a.png", "a.png"], "a.png: onnxruntime cannot load it"),
    "an old file": (["old.onnx", "a.png"], "old.onnx: no whole model"),
    "normalised": (["normalised.onnx", "a.png"], "export with --input rgb"),
    "no image": (["good.onnx", "none.png"], "none.png: cannot be read as an image"),
    "half an image": (["good.onnx", "half.png"], "half.png: cannot be read as an image"),
    "a folder": (["good.onnx", "."], ".: cannot be read as an image"),
    "no picture": (["good.onnx", "text.png"], "text.png: cannot be read as an image"),
    "over itself": (["good.onnx", "a.png", "--out", "."], "name another folder"),
    "one name": (["good.onnx", "a.png", "b/a.jpg", "--out", "c"], "have one name"),
    "no engine": (["good.onnx", "a.png", "--engine", "openvino"], "pip install openvino"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(
    mistake: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    Image.fromarray(noise(8, 8)).save("a.png")
    Path("text.png").write_text("no picture")
    Path("half.png").write_bytes(Path("a.png").read_bytes()[:-80])
    write_segmentor(Path("good.onnx"))
    write_segmentor(Path("normalised.onnx"), input="normalised as the config does it")
    write_segmentor(Path("old.onnx"), task="")
    arguments, wanted = MISTAKES[mistake]
    before = set(tmp_path.iterdir())
    assert command(*arguments) == 1
    said = capsys.readouterr()
    assert wanted in said.err and said.err.count("\n") == 1 and not said.out
    assert said.err.startswith("error: ") and set(tmp_path.iterdir()) == before


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    model = Model(write_segmentor(tmp_path / "m.onnx"))
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(RuntimeUserError, match="an image is"):
            model(wrong)
