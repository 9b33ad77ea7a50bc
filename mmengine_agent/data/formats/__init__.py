"""Formats of annotations that are converted: a file each, and a line in ``FORMATS``."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine_agent.data.formats.cityscapes import is_cityscapes, read_cityscapes
from mmengine_agent.data.formats.cvat import is_cvat, read_cvat
from mmengine_agent.data.formats.labelme import is_labelme, read_labelme
from mmengine_agent.data.formats.records import Notes, Picture
from mmengine_agent.data.formats.voc import is_voc, read_voc
from mmengine_agent.data.formats.yolo import is_yolo, read_yolo

Read = Callable[[Path, Notes, Sequence[str]], tuple[Sequence[str], Iterator[Picture]]]


class Format(NamedTuple):
    """A form of annotations: whether a folder has it, and its reader.

    A reader gives class names in their order, as far as the format has one, and the images.
    """

    fits: Callable[[Path], bool]
    read: Read


FORMATS = {
    "yolo": Format(is_yolo, read_yolo),
    "voc": Format(is_voc, read_voc),
    "labelme": Format(is_labelme, read_labelme),
    "cvat": Format(is_cvat, read_cvat),
    "cityscapes": Format(is_cityscapes, read_cityscapes),
}


def guess_format(root: Path) -> str | None:
    """The format of a folder; None if it has none of ``FORMATS``."""
    return next((name for name, each in FORMATS.items() if root.is_dir() and each.fits(root)), None)
