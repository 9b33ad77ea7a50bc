"""The category ids that a detector's labels stand for."""

from pathlib import Path

from mmengine.config import Config

from mmdet_agent.data.config import reads_coco
from mmdet_agent.data.read import forget_files, read_categories
from mmengine_agent.predict.classes import meta_of_type
from mmengine_agent.predict.model import dataset_of

# COCO numbers its 80 classes from 1 to 90 and leaves these out (instances_val2017.json)
_COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def category_ids(cfg: Config, names: tuple[str, ...]) -> tuple[int, ...]:
    """Those of the annotation file that the config names; else COCO's own; else label + 1."""
    dataset = dataset_of(cfg)
    path = Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")
    if path.is_file() and reads_coco(dataset):
        listed = read_categories(path)
        forget_files()
        if set(names) <= listed.keys():
            return tuple(listed[name] for name in names)
    if names == tuple(meta_of_type(cfg, "mmdet.CocoDataset")["classes"]):
        return tuple(number for number in range(1, 91) if number not in _COCO_GAPS)
    return tuple(range(1, len(names) + 1))
