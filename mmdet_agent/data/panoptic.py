"""The classes of a panoptic data set: things, then stuff."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmdet_agent.data.read import forget_files, read_categories, read_coco
from mmengine_agent.data.user_data import class_names, datasets
from mmengine_agent.errors import UserError


def panoptic_classes(cfg: Config) -> dict[str, Any] | None:
    """The classes of panoptic COCO sets as their files list them; None if they are the config's.

    Raises:
        UserError: if a file lists stuff before things, which mmdet's heads cannot number.
    """
    orders: dict[tuple[str, ...], dict[str, Any]] = {}
    for _, dataset in datasets(cfg):
        path = Path(dataset.get("data_root") or "", dataset.get("ann_file") or "")
        if "Panoptic" not in str(dataset.type) or not path.is_file():
            continue
        names = tuple(read_categories(path))
        content, _ = read_coco(path)
        kinds = [bool(each.get("isthing", 1)) for each in (content or {}).get("categories", ())]
        if kinds != sorted(kinds, reverse=True):
            raise UserError(
                f"{path} lists stuff before things: put the categories with isthing 1 first, "
                "as mmdet's heads number them"
            )
        things = sum(kinds)
        orders[names] = {"thing_classes": names[:things], "stuff_classes": names[things:]}
    forget_files()
    if len(orders) > 1:
        raise UserError("the panoptic annotation files list different classes")
    for names, parts in orders.items():
        if names and names != class_names(next(datasets(cfg))[1], "mmdet"):
            return {"classes": names, **parts}
    return None
