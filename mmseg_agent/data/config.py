"""A segmentation config's data: pointed at a user's, and looked at before a run."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmengine_agent.data.images import IMAGES
from mmengine_agent.data.user_data import DataFlags, datasets
from mmengine_agent.errors import Problem


def point_at(cfg: Config, flags: DataFlags) -> Sequence[str] | None:
    """Point loaders at a user's ADE20K-like data; the class names, if the user gave any."""
    for split, dataset in datasets(cfg):
        dataset.data_root = flags.root or dataset.get("data_root") or ""
        train, prefix = split == "train", dataset.data_prefix
        images = (flags.train_images if train else flags.val_images) or prefix.img_path
        labels = (flags.train_ann if train else flags.val_ann) or prefix.seg_map_path
        dataset.data_prefix = {"img_path": images, "seg_map_path": labels}
        folder = Path(dataset.data_root, images)
        endings = {path.suffix for path in (folder.iterdir() if folder.is_dir() else ())}
        endings = {ending for ending in endings if ending.lower() in IMAGES}
        if len(endings) == 1:
            dataset.img_suffix = endings.pop()
        if flags.classes:
            # ADE20KDataset knows its own 150 names only; this takes any, with the same zero label
            dataset.type = "NamedSegDataset"
            dataset.reduce_zero_label = True
            dataset.setdefault("img_suffix", ".jpg")
            dataset.setdefault("seg_map_suffix", ".png")
    return flags.classes


def data_problems(cfg: Config, splits: Sequence[str]) -> Iterator[Problem]:
    """What is wrong with the sets of some splits, as far as their folders are there."""
    for split, dataset in datasets(cfg):
        if split in splits:
            yield from _set_problems(dataset, split)


def _set_problems(dataset: Any, split: str) -> Iterator[Problem]:
    root, prefix = dataset.get("data_root") or "", dataset.get("data_prefix") or {}
    images, labels = (Path(root, prefix.get(key) or "-") for key in ("img_path", "seg_map_path"))
    if dataset.get("ann_file") or not (images.is_dir() and labels.is_dir()):
        return
    try:
        with DATASETS.switch_scope_and_registry("mmseg") as registry:
            built = registry.build({**dataset, "lazy_init": True, "pipeline": []})
        found = [Path(each["seg_map_path"]) for each in built.load_data_list()]
    except OSError as error:  # such as a link to itself, at which mmseg ends too
        yield Problem(f"{error.filename or images}: {error.strerror}")
        return
    absent = [path for path in found if not path.exists()]
    if not found:
        others = Counter(path.suffix for path in images.rglob("*") if path.is_file())
        there = ", ".join(f"{count} {ending}" for ending, count in others.most_common(3))
        yield Problem(
            f"{images}: no image ends in {built.img_suffix} (there: {there or 'nothing'}); "
            f"--cfg-options {split}_dataloader.dataset.img_suffix=.png changes what is looked for"
        )
    elif absent:
        number = f"{len(absent)} of {len(found)}"
        yield Problem(f"{labels}: {number} images have no label map, such as {absent[0].name}")
