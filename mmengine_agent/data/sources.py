"""Where COCO and ADE20K are on the net, and what must be there once they are unpacked."""

import os
from pathlib import Path
from typing import NamedTuple


class Archive(NamedTuple):
    """A ZIP file, and what it brings: files, or folders with their numbers of files."""

    address: str
    wanted: dict[str, int]

    @property
    def name(self) -> str:
        return self.address.rpartition("/")[2]


_COCO = "http://images.cocodataset.org"
_ADE = "ADEChallengeData2016"
ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "coco": (
        Archive(
            f"{_COCO}/annotations/annotations_trainval2017.zip",
            {f"annotations/instances_{split}2017.json": 1 for split in ("train", "val")},
        ),
        Archive(f"{_COCO}/zips/val2017.zip", {"val2017": 5000}),
        Archive(f"{_COCO}/zips/train2017.zip", {"train2017": 118287}),
    ),
    "ade20k": (
        Archive(
            f"http://data.csail.mit.edu/places/ADEchallenge/{_ADE}.zip",
            {
                f"{_ADE}/{kind}/{split}": count
                for kind in ("images", "annotations")
                for split, count in (("training", 20210), ("validation", 2000))
            },
        ),
    ),
}


def lacking(root: Path, wanted: dict[str, int]) -> list[str]:
    """What of an archive is not below ``root``, in words; empty if all is there."""
    faults = []
    for name, count in wanted.items():
        found = _count(root / name)
        if found < count:
            faults.append(f"{root / name} has {found} of {count} files")
    return faults


def _count(path: Path) -> int:
    """Files in a folder; 1 for a file, 0 for nothing."""
    if path.is_dir():
        with os.scandir(path) as entries:
            return sum(1 for _ in entries)
    return int(path.is_file())
