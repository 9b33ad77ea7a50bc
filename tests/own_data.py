"""A user's own data under names of their own, of both kinds, and configs to point at them."""

import copy
import functools
import json
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmengine_agent.data.user_data import DataFlags
from mmengine_agent.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"
COCO = CONFIGS / "agent_pvt_maskrcnn.py"
COCO_DEMO = CONFIGS / "demo/agent_pvt_maskrcnn_demo.py"
ADE = CONFIGS / "agent_pvt_semantic_fpn.py"
ADE_DEMO = CONFIGS / "demo/agent_pvt_semantic_fpn_demo.py"
SPLITS = ("train", "val", "test")
LOADERS = [f"{split}_dataloader" for split in SPLITS]
SIZE = 40
# neither sorted nor from 0 or 1, as annotation tools write them
CATEGORIES = [(7, "pear"), (3, "apple"), (90, "fig")]
NAMES = ["pear", "apple", "fig"]


def save_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def picture() -> np.ndarray:
    return np.full((SIZE, SIZE, 3), 128, np.uint8)


def write_coco(
    path: Path, categories: Sequence[tuple[int, str]], images: str = "pictures"
) -> dict[str, Any]:
    """An annotation file with an image of one square for every category, and the images."""
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }
    for number, (category, name) in enumerate(categories, 1):
        save_picture(path.parent / images / f"{name}.jpg", picture())
        size = {"width": SIZE, "height": SIZE}
        content["images"].append({"id": number, "file_name": f"{name}.jpg", **size})
        square = {"bbox": [4, 4, 20, 20], "area": 400, "segmentation": [[4, 4, 24, 4, 24, 24]]}
        what = {"id": number, "image_id": number, "category_id": category, "iscrowd": 0}
        content["annotations"].append({**what, **square})
    path.write_text(json.dumps(content))
    return content


def fruit_set(folder: Path) -> DataFlags:
    """A COCO-like data set under names of its own."""
    write_coco(folder / "learn.json", CATEGORIES, "learn")
    write_coco(folder / "check.json", CATEGORIES, "check")
    return DataFlags(str(folder), "learn.json", "check.json", "learn", "check")


def scenes_set(folder: Path) -> DataFlags:
    """An ADE20K-like data set with PNG pictures; label 0 is void, 1 is road, 2 is sky."""
    # stripes so thin that no random crop misses a label
    labels = (np.arange(SIZE, dtype=np.uint8) % 3)[:, None].repeat(SIZE, axis=1)
    for part in ("learn", "check"):
        save_picture(folder / part / "pictures/a.png", picture())
        save_picture(folder / part / "labels/a.png", labels)
    (folder / "names.txt").write_text("road\n\n sky \n")
    return DataFlags(
        str(folder),
        train_ann="learn/labels",
        val_ann="check/labels",
        train_images="learn/pictures",
        val_images="check/pictures",
        classes=("road", "sky"),
    )


@functools.cache
def read(path: Path) -> Config:
    return Config.fromfile(path)


def load(path: Path) -> Config:
    """A config of its own for each caller."""
    return copy.deepcopy(read(path))


def plain(cfg: Config) -> dict[str, Any]:
    return cfg._cfg_dict.to_dict()


def counts(node: Any) -> list[int]:
    """Every num_classes of a config, wherever it is."""
    if isinstance(node, dict):
        own = [node["num_classes"]] if "num_classes" in node else []
        return own + [n for child in node.values() for n in counts(child)]
    return [n for child in node for n in counts(child)] if isinstance(node, list) else []


def build_dataset(cfg: Config, loader: str) -> Any:
    """The dataset of a loader, read from its files."""
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg[loader].dataset)
    dataset.full_init()
    return dataset


def parse(*flags: str) -> DataFlags:
    """The data flags of a command line."""
    parser = ArgumentParser()
    DataFlags.add_to(parser)
    return DataFlags.of(parser.parse_args(flags))


def message(call: Any, *arguments: Any) -> str:
    """What the UserError of a call says."""
    with pytest.raises(UserError) as error:
        call(*arguments)
    return str(error.value)
