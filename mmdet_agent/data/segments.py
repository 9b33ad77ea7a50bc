"""The segments of panoptic COCO: PNGs whose colours are ids, and a JSON with each id's class."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets.transforms import LoadPanopticAnnotations

from mmdet_agent.data.read import annotation_path
from mmengine_agent.draw import read_image
from mmengine_agent.errors import Problem, UserError

_LOOKED, _OPENED = 100, 10  # PNGs that are looked for, and those that are read
_KEYS = ("id", "category_id", "bbox", "area")  # of a segment; mmdet ends at one that is missing


class LoadSegments(LoadPanopticAnnotations):
    """mmdet's loading of panoptic annotations, which asks panopticapi for one function."""

    def __init__(self, **settings: Any) -> None:
        every = dict.fromkeys(("with_bbox", "with_label", "with_mask", "with_seg"), True)
        super(LoadPanopticAnnotations, self).__init__(**{**every, **settings})
        self.rgb2id = segment_ids


def segment_ids(colours: np.ndarray) -> np.ndarray:
    """The ids (H, W), int32, of a panoptic PNG's colours (H, W, 3), RGB: R + 256 G + 65536 B."""
    return colours.astype(np.int32) @ np.array([1, 256, 65536], np.int32)


def read_segment_ids(path: Path) -> np.ndarray:
    """The ids (H, W) of a panoptic PNG.

    Raises:
        UserError: if it cannot be read.
    """
    image = read_image(path)
    if image is None:
        raise UserError(f"{path}: the panoptic PNG cannot be read as an image")
    return segment_ids(image[..., ::-1])


def segments_file(name: str) -> str:
    """The PNG of an image, as mmdet names it."""
    return name.replace(".jpg", ".png")


def segment_problems(content: dict[str, Any], dataset: Any, scored: bool) -> Iterator[Problem]:
    """What is wrong with a panoptic set beyond its images.

    Args:
        content: of its JSON.
        dataset: its config.
        scored: whether it is scored, which asks for iscrowd, too.
    """
    path, keys = annotation_path(dataset), (*_KEYS, *["iscrowd"] * scored)
    wrong = next(_wrong_entries(content, keys), None)
    folder = Path(dataset.get("data_root") or "", dataset.get("data_prefix", {}).get("seg") or "")
    if wrong is not None:
        yield Problem(f"{path}: {wrong}")
    elif folder.is_dir():  # require_data says it
        yield from _file_problems(content, path, folder)


def _wrong_entries(content: dict[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    known = set()
    for index, each in enumerate(content["categories"]):
        known.add(each["id"])
        if each.get("isthing") not in (0, 1):
            yield f"categories[{index}] ({each['name']}): isthing must be 1 (a thing) or 0 (stuff)"
    for index, note in enumerate(content["annotations"]):
        segments = note.get("segments_info") if isinstance(note, dict) else None
        if not isinstance(segments, list) or "image_id" not in note:
            yield f"annotations[{index}] needs image_id and a list segments_info: panoptic COCO's"
            return
        for number, segment in enumerate(segments):
            place = f"annotations[{index}].segments_info[{number}]"
            missing = [key for key in keys if key not in segment]
            if missing:
                yield f"{place} has no {', '.join(missing)}"
            elif segment["category_id"] not in known:
                yield f"{place}: there is no category {segment['category_id']}"


def _file_problems(content: dict[str, Any], path: Path, folder: Path) -> Iterator[Problem]:
    listed = {note["image_id"]: note["segments_info"] for note in content["annotations"]}
    images = content["images"][:: max(1, len(content["images"]) // _LOOKED)]
    files = {folder / segments_file(each["file_name"]): each["id"] for each in images}
    absent = [file for file in files if not file.exists()]
    if absent:
        yield Problem(
            f"{folder} lacks {len(absent)} of the {len(files)} PNGs of {path} that were looked "
            f"for, such as {absent[0]}: each has the name of its image, with .png for .jpg"
        )
        return
    for file, image in list(files.items())[:_OPENED]:
        ids = read_segment_ids(file)
        wanted = {segment["id"] for segment in listed.get(image, [])}
        found = {*np.unique(ids).tolist()} - {0}
        if wanted - found or found - wanted:
            yield Problem(
                f"{file} has the ids {_some(found)}, and {path} lists {_some(wanted)} for its "
                "image: an id is R + 256 G + 65536 B of the PNG's colour",
                fatal=bool(wanted) and not wanted & found,
            )
            return


def _some(ids: set[int]) -> str:
    shown = sorted(ids)[:5]
    return (", ".join(map(str, shown)) or "none") + (" ..." if len(ids) > len(shown) else "")
