"""Broken annotations and images, the quick part: tests/faults/annotations.py does thousands."""

import copy
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import annotations as bench
import make_demo_data
import numpy as np
import pytest
from data_faults import COCO_ENTRIES, plant_coco
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmdet_agent.data.coco import file_faults
from mmdet_agent.data.problems import stopping_faults
from mmdet_agent.data.read import forget_files, read_categories, read_coco
from mmengine_agent.data.faults import STOPS
from mmengine_agent.data.user_data import DataFlags, point_at
from mmengine_agent.errors import BadSample
from mmengine_agent.hooks.samples import BadSamplesHook
from mmengine_agent.run.flags import guard_loading

FORMATS = ("coco", "ade")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_demo_data.main([str(folder), "--train", "2", "--val", "2", "--size", "64"])
    return folder


# ---- annotations


def test_mutated_annotations_are_clear_errors_or_trained_on() -> None:
    found = bench.run(40)
    assert sum(found.values()) == 40
    assert found.keys() == {"error", "trained"}


def test_a_training_is_stopped_by_the_faults_that_the_table_says(tmp_path: Path) -> None:
    in_files = {f"image-{word}" for word in ("missing", "unreadable", "truncated", "size")}
    for name, (kind, _) in COCO_ENTRIES.items():
        if kind not in in_files:
            plant_coco(name, tmp_path / name)
            content, _ = read_coco(tmp_path / name / "all.json")
            assert content is not None
            faults = list(file_faults(content))
            trained = {fault.kind for fault in stopping_faults(faults, True, False)}
            assert trained == ({kind} & STOPS.keys()), name
            evaluated = {fault.kind for fault in stopping_faults(faults, True, True)}
            assert evaluated == ({kind} & {*STOPS, "iscrowd-missing"}), name


def test_annotations_are_read_again_only_when_they_change(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scenes / "coco/annotations/instances_val2017.json"
    reads = []
    load = json.loads
    monkeypatch.setattr(json, "loads", lambda text: reads.append(text) or load(text))
    forget_files()
    first, _ = read_coco(path)
    assert first is not None
    assert list(read_categories(path).values()) == [each["id"] for each in first["categories"]]
    assert read_coco(path)[0] is first and len(reads) == 1
    os.utime(path, ns=(0, 0))
    assert read_coco(path) == (first, []) and len(reads) == 2
    forget_files()
    read_coco(path)
    assert len(reads) == 3


# ---- images


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def bomb(path: Path) -> None:
    """A PNG whose header asks for 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))


def again(format_: str, mode: str = "RGB") -> Callable[[Path], None]:
    """The same picture in another format or mode, under the same name."""
    return lambda path: Image.open(path).convert(mode).save(path, format_)


def deep(path: Path) -> None:
    grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
    Image.fromarray(grey * 256).save(path, "PNG")


def turned(path: Path) -> None:
    """A picture that lies on its side, as phones save them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(path)
    image.resize((image.width, image.height // 2)).save(path, "JPEG", exif=exif)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all.jpg")


def looping(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (cut, "truncated, no end mark"),
    "empty": (lambda path: path.write_bytes(b""), "truncated, the file is empty"),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), "no image can be opened"),
    "text": (lambda path: path.write_text("<html>404</html>"), "no image can be opened"),
    "bomb": (bomb, "more than 178 million pixels"),
    "turned": (turned, "31 x 64"),
    "directory": (directory, "Is a directory"),
    "dangling": (dangling, "there is no such file"),
    "looping": (looping, "Too many levels of symbolic links"),
}
FINE: dict[str, Callable[[Path], Any]] = {
    "another format": again("PNG"),
    "four inks": again("JPEG", "CMYK"),
    "grey": again("JPEG", "L"),
    "16 bits": deep,
}


def loaded(kind: str, scenes: Path, spoil: Callable[[Path], Any], folder: Path) -> tuple[str, Any]:
    """The spoilt image of a test set, and its sample as it is loaded for testing."""
    cfg = copy.deepcopy(bench.read(kind))
    init_default_scope(cfg.default_scope)
    root = folder / kind
    shutil.copytree(scenes / kind, root)
    point_at(cfg, DataFlags(root=str(root)))
    cfg.work_dir = str(folder)
    guard_loading(cfg)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    path = dataset.get_data_info(0)["img_path"]
    spoil(Path(path))
    hook = BadSamplesHook(cfg.custom_hooks[0].policy, cfg.custom_hooks[0].log_dir)
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
    hook.before_test(SimpleNamespace(test_loop=loop, cfg=cfg))
    return path, dataset[0]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", SPOILT)
def test_a_bad_image_ends_a_test_with_its_name(
    what: str, kind: str, scenes: Path, tmp_path: Path
) -> None:
    spoil, words = SPOILT[what]
    with pytest.raises(BadSample, match=words) as caught:
        loaded(kind, scenes, spoil, tmp_path)
    assert str(caught.value).startswith(f"cannot load {tmp_path / kind}/")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("what", FINE)
def test_images_that_can_be_read_are(what: str, kind: str, scenes: Path, tmp_path: Path) -> None:
    path, sample = loaded(kind, scenes, FINE[what], tmp_path)
    assert sample["data_samples"].img_path == path
    assert sample["inputs"].shape[0] == 3 and sample["inputs"].float().std() > 1
