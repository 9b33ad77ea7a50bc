"""The benchmarks of large images: what they measure, and that right predictions score 1."""

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import demo_scenes
import large_images
import large_scenes
import numpy as np
import pytest
import torch
from helpers import SMALL, seed_weights

from mmengine_agent.predict.model import build_model
from mmengine_agent.run.setup import read_config

CONFIG = Path(__file__).parents[1] / "configs/demo/agent_pvt_semantic_fpn_demo.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A config and a checkpoint of a small segmentor."""
    folder = tmp_path_factory.mktemp("model")
    cfg = read_config(str(CONFIG))
    cfg.model.backbone.arch, cfg.model.neck.in_channels = dict(SMALL), list(SMALL["embed_dims"])
    cfg.dump(folder / "config.py")
    weights = seed_weights(build_model(cfg)).state_dict()
    torch.save({"state_dict": weights, "meta": {}}, folder / "model.pth")
    return str(folder / "config.py"), str(folder / "model.pth")


def test_each_part_has_a_peak_and_forms_have_the_same_labels(
    model: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config, checkpoint = model
    flags = ["--config", config, "--checkpoint", checkpoint, "--forms", "ours,upstream,plain"]
    flags += ["--compare", "--sizes", "96x128", "160x192", "--limit-gib", "1000", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["large_images.py", *flags, "--out", str(tmp_path)])
    monkeypatch.setattr(large_images, "measure_apart", large_images.measure)
    large_images.main()
    records = json.loads((tmp_path / "large_images.json").read_text())["records"]
    assert [each["size"] for each in records] == [[96, 128], [160, 192]] * 3
    for each in records:
        assert set(each["parts"]) == {"preparation", "backbone", "neck", "head", "results"}
        assert all(10**8 < part["peak"] <= each["peak"] for part in each["parts"].values())
    assert [each["equal"]["whole"] for each in records[2:4]] == [1, 1]
    assert all(each["equal"]["whole"] > 0.999 for each in records[4:])  # sums in another order
    assert "megapixels in 16 GB" in capsys.readouterr().out


def test_the_largest_image_is_where_the_line_through_the_last_two_ends() -> None:
    peaks = {(500, 1000): 3e9, (1000, 1000): 1e9 + 1e6 * 1000, (1000, 3000): 4e9}
    records = [{"model": "m", "form": "f", "size": s, "peak": p} for s, p in peaks.items()]
    row = large_images.largest_table(records).splitlines()[-1].split()
    assert row[:6] == ["m", "f", "1000", "1.00", "7.0", "1984"] and row[8] == "15.0"


def test_what_would_take_too_much_is_left_out() -> None:
    known = [{"size": (100, 100), "peak": 2e9}, {"size": (100, 200), "peak": 3e9}]
    case = {"model": "m", "form": "ours", "size": [1000, 1000], "limit": None}
    found = large_images.run_case(case, known, 5e9)
    assert found["skipped"] and found["expected"] == 101e9


def test_right_labels_and_objects_score_1_and_wrong_ones_less() -> None:
    picture, labels, objects = large_scenes.mosaic((2, 3))
    assert picture.shape == (240, 360, 3) and labels.shape == (240, 360)
    assert large_scenes.score_labels(labels, labels) == {"mIoU": 1}
    assert large_scenes.score_labels(np.where(labels == 1, 2, labels), labels)["mIoU"] < 0.9
    for each in objects:  # a mask is where the labels have its class
        name = list(demo_scenes.THINGS)[each["category_id"] - 1]
        mask = large_scenes.decode(each["segmentation"], labels.shape) > 0
        wanted = 0 if each["iscrowd"] else demo_scenes.CLASSES.index(name) + 1
        assert (labels[mask] == wanted).mean() > 0.85  # polygons are smoother
    keys = ("image_id", "category_id", "bbox", "segmentation")
    found = [{**{key: each[key] for key in keys}, "score": 0.9} for each in objects]
    right = large_scenes.score_objects(found, objects, labels.shape)
    assert right["bbox AP"] == right["segm AP"] == pytest.approx(1)
    assert large_scenes.score_objects(found[:-1], objects, labels.shape)["segm AP"] < 1


def test_a_whole_image_and_tiles_are_scored(
    model: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    seen = []

    def run(args: Any, image: Path, flags: list[str], out: Path) -> large_scenes.Found:
        seen.append(flags)
        (out / "labels").mkdir(parents=True, exist_ok=True)
        labels = large_scenes.mosaic(args.cells)[1]
        assert cv2.imread(str(image)).shape[:2] == labels.shape
        cv2.imwrite(str(out / "labels/scene.png"), labels)
        return {"seconds": 1.0, "peak GB": 2.0}

    monkeypatch.setattr(large_scenes, "run", run)
    flags = ["--cells", "1x2", "--tiles", "64", "--max-memory", "3GB", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["large_scenes.py", *model, *flags])
    large_scenes.main()
    assert seen == [["--tile", "64"], ["--max-memory", "3GB"]]
    assert capsys.readouterr().out.count("1.000    2.000  1.000") == 2
