"""Points a segmentation config at a user's ADE20K-like data."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmengine_agent.data.images import IMAGES
from mmengine_agent.data.user_data import DataFlags, datasets


def point_at(cfg: Config, flags: DataFlags) -> Sequence[str] | None:
    """Point loaders at a user's data; the class names, if the user gave any."""
    for split, dataset in datasets(cfg):
        _move_ade(dataset, flags, split)
    return flags.classes


def _move_ade(dataset: Any, flags: DataFlags, split: str) -> None:
    dataset.data_root = flags.root or dataset.get("data_root") or ""
    train = split == "train"
    images = (flags.train_images if train else flags.val_images) or dataset.data_prefix.img_path
    labels = (flags.train_ann if train else flags.val_ann) or dataset.data_prefix.seg_map_path
    dataset.data_prefix = {"img_path": images, "seg_map_path": labels}
    files = _children(Path(dataset.data_root, images))
    suffixes = {path.suffix for path in files if path.suffix.lower() in IMAGES}
    if len(suffixes) == 1:
        dataset.img_suffix = suffixes.pop()
    if flags.classes:
        # ADE20KDataset knows its own 150 names only; this takes any, with the same zero label.
        dataset.type = "NamedSegDataset"
        dataset.reduce_zero_label = True
        dataset.setdefault("img_suffix", ".jpg")
        dataset.setdefault("seg_map_suffix", ".png")


def _children(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())
