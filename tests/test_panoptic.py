"""Predictions of panoptic models: COCO's format, read back as its tools do."""

import json
from argparse import ArgumentParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoPanopticDataset

from mmdet_agent.predict.panoptic import PanopticWriter
from mmdet_agent.predict.writer import category_ids
from mmengine_agent.data.user_data import DataFlags, point_at
from mmengine_agent.draw import class_colours
from mmengine_agent.errors import UserError
from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.sliding_window import cover
from mmengine_agent.run.setup import read_config

CONFIG = "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py"
CLASSES = Classes(("cat", "dog", "grass"), class_colours(3), (17, 18, 193))
VOID = 3  # mmdet's label of pixels that are of no class


def test_segments_are_written_as_coco_has_them(tmp_path: Path) -> None:
    truth = np.full((40, 60), VOID)
    truth[:30] = 2  # grass
    truth[5:20, 5:20] = 0 + 1000 * 1  # a cat
    truth[5:20, 30:50] = 0 + 1000 * 2  # another cat
    sample = SimpleNamespace(pred_panoptic_seg=SimpleNamespace(sem_seg=torch.tensor(truth)[None]))
    writer = PanopticWriter(CLASSES, 0.3)
    (tile,) = cover(40, 60, None, 0)
    result = writer.merge((40, 60), [(tile, sample)])
    writer.save(tmp_path, "a", 7, (40, 60), result)
    writer.finish(tmp_path)
    picture = np.zeros((40, 60, 3), np.uint8)
    writer.draw(picture, result)

    (entry,) = json.loads((tmp_path / "panoptic.json").read_text())["annotations"]
    assert (entry["image_id"], entry["file_name"]) == (7, "a.png")
    blue, green, red = cv2.imread(str(tmp_path / "panoptic/a.png")).astype(int).transpose(2, 0, 1)
    ids = red + 256 * green + 65536 * blue
    found = {each["id"]: (each["category_id"], each["area"]) for each in entry["segments_info"]}
    assert {number: int((ids == number).sum()) for number in np.unique(ids) if number} == {
        number: area for number, (_, area) in found.items()
    }
    assert sorted(found.values()) == [(17, 225), (17, 300), (193, 30 * 60 - 525)]
    assert (ids[truth == VOID] == 0).all() and ids[10, 10] != ids[10, 40]
    assert not picture[35:].any() and picture[:25].any(2).all()


def test_cocos_own_classes_have_its_ids() -> None:
    cfg = read_config(CONFIG)
    names = CocoPanopticDataset.METAINFO["classes"]
    ids = dict(zip(names, category_ids(cfg, names), strict=True))
    assert (ids["person"], ids["toothbrush"], ids["banner"], ids["rug-merged"]) == (1, 90, 92, 200)
    assert (ids["grass-merged"], ids["wall-brick"], ids["water-other"]) == (193, 171, 178)


def panoptic_set(folder: Path, kinds: list[int]) -> list[str]:
    """Flags of a panoptic annotation file with categories of these kinds."""
    names = ("cat", "dog", "grass")
    rows = zip(names, kinds, strict=True)
    categories = [{"id": i, "name": name, "isthing": k} for i, (name, k) in enumerate(rows, 1)]
    content = {"images": [], "annotations": [], "categories": categories}
    (folder / "pan.json").write_text(json.dumps(content))
    return ["--data-root", str(folder), "--train-ann", "pan.json", "--val-ann", "pan.json"]


def flags(*words: str) -> DataFlags:
    parser = ArgumentParser()
    DataFlags.add_to(parser)
    return DataFlags.of(parser.parse_args(words))


def test_heads_get_the_things_and_stuff_that_the_file_lists(tmp_path: Path) -> None:
    cfg = read_config(CONFIG)
    assert point_at(cfg, flags(*panoptic_set(tmp_path, [1, 1, 0]))) == ["cat", "dog", "grass"]
    head = cfg.model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (2, 1)
    assert head.loss_cls.class_weight == [1.0] * 3 + [0.1]
    dataset = cfg.train_dataloader.dataset
    assert dataset.metainfo.stuff_classes == ("grass",)


def test_stuff_before_things_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pan\.json lists stuff before things"):
        point_at(read_config(CONFIG), flags(*panoptic_set(tmp_path, [0, 1, 0])))
