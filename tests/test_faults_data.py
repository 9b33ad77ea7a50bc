"""Broken annotations and images, the quick part: tests/faults/annotations.py does thousands."""

import copy
import gc
import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
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

from mmdet_agent.data import coco, preflight
from mmdet_agent.data.read import forget_files, read_categories, read_coco
from mmengine_agent.data.faults import KINDS
from mmengine_agent.data.user_data import DataFlags, point_at
from mmengine_agent.errors import BadSample
from mmengine_agent.hooks.samples import BadSamplesHook
from mmengine_agent.run.flags import guard_loading

FORMATS = ("coco", "ade")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    make_demo_data.main([str(folder), "--train", "2", "--val", "2", "--size", "64"])
    gc.freeze()  # mmengine collects for each data set, and all that is imported is looked at
    yield folder
    gc.unfreeze()


# ---- annotations


def test_mutated_annotations_are_clear_errors_or_trained_on() -> None:
    found = bench.run(40)
    assert sum(found.values()) == 40
    assert found.keys() == {"error", "trained"}


def test_annotations_that_look_plain_have_no_faults(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick look passes over nothing that the thorough one finds."""
    content = json.loads((scenes / "coco/annotations/instances_train2017.json").read_text())
    files = list(mutants(content, 150))
    quick = [list(preflight.stopping_faults(each, True, True)) for each in files]
    plain = sum(
        preflight.is_plain(note, coco.Context.of(content)) for note in content["annotations"]
    )
    assert plain > len(content["annotations"]) / 2
    monkeypatch.setattr(preflight, "is_plain", lambda *_: False)
    assert quick == [list(preflight.stopping_faults(each, True, True)) for each in files]
    assert sum(map(bool, quick)) > len(files) / 4


def test_a_training_is_stopped_by_the_faults_that_the_table_says(tmp_path: Path) -> None:
    depend = {"iscrowd", "polygon-length", "polygon-outside"}  # on what else the annotation has
    in_files = {f"image-{word}" for word in ("missing", "unreadable", "truncated", "size")}
    for name, (kind, _) in COCO_ENTRIES.items():
        if kind not in depend | in_files:
            plant_coco(name, tmp_path / name)
            content, _ = read_coco(tmp_path / name / "all.json")
            assert content is not None
            found = {fault.kind for fault in preflight.stopping_faults(content, True, True)}
            assert found == ({kind} if KINDS[kind].stops_training else set()), name


def test_annotations_are_read_again_only_when_they_change(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scenes / "coco/annotations/instances_val2017.json"
    reads = []
    load = json.load
    monkeypatch.setattr(json, "load", lambda file: reads.append(file.name) or load(file))
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", 2),  # of another
        ("id", True),
        ("image_id", 9),
        ("category_id", "1"),
        ("iscrowd", 2),
        ("iscrowd", False),
        ("area", float("inf")),
        ("area", None),
        ("bbox", [1, 2, 3]),
        ("bbox", [1, 2, 3, float("nan")]),
        ("bbox", "1234"),
        ("segmentation", []),
        ("segmentation", [[1, 2, 3, 4, 5, float("nan")]]),
        ("segmentation", [[1, 2, 3, 4, 5, "6"]]),
        ("segmentation", [[1, 2, 3, 4, 5, 10**400]]),
        ("segmentation", [[]]),
        ("segmentation", [[[1, 2], [3, 4]]]),
        ("segmentation", {"size": [9, 9], "counts": [81]}),
    ],
)
def test_what_is_unusual_is_looked_at_thoroughly(key: str, value: Any) -> None:
    context = coco.Context({1: (9, 9)}, {1}, {2})
    note = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 4}
    note |= {"bbox": [1, 1, 2, 2], "segmentation": [[1, 1, 3, 1, 3, 3]]}
    assert preflight.is_plain(note, context)
    assert not preflight.is_plain({**note, key: value}, context)
    assert not preflight.is_plain({name: note[name] for name in note if name != key}, context)


def mutants(content: Any, count: int) -> Iterator[Any]:
    """Variants of the annotations that can still be read."""
    for number in range(count):
        notes = json.loads(json.dumps(content["annotations"]))
        for _ in range(3):
            bench._change(notes, random.Random(number))
        yield {**content, "annotations": json.loads(json.dumps(notes))}


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
    "turned": (turned, "31 x 64( on disk|$)"),
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
