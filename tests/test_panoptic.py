"""Predictions of panoptic models: COCO's format, read back as its tools do."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch

from mmdet_agent.predict.panoptic import PanopticWriter
from mmdet_agent.predict.writer import category_ids
from mmengine_agent.draw import class_colours
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
    from mmdet.datasets import CocoPanopticDataset

    names = CocoPanopticDataset.METAINFO["classes"]
    ids = dict(zip(names, category_ids(cfg, names), strict=True))
    assert (ids["person"], ids["toothbrush"], ids["banner"], ids["rug-merged"]) == (1, 90, 92, 200)
    assert (ids["grass-merged"], ids["wall-brick"], ids["water-other"]) == (193, 171, 178)
