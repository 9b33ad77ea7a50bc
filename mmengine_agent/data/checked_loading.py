"""Loading with checks: files that decoders fill up or cut off in silence are found here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmengine_agent.data.images import ImageError, probe
from mmengine_agent.errors import BadSample

LabelCheck = Callable[[Path, int], None]
_ROW = 100  # bad samples one after the other: then it is no longer a matter of single files


def check_loading(
    dataset: Any,
    log: Path | None,
    classes: int | None = None,
    check_labels: LabelCheck | None = None,
) -> None:
    """Put ``CheckedLoading`` in place of the loading steps of a data set; twice changes nothing.

    Args:
        dataset: of mmengine's kind; sets within it are looked for.
        log: as ``CheckedLoading`` has it.
        classes: likewise.
        check_labels: likewise.
    """
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    for each in inner:
        if each is not None:
            check_loading(each, log, classes, check_labels)
    pipeline = getattr(getattr(dataset, "pipeline", None), "transforms", [])
    if any(isinstance(step, CheckedLoading) for step in pipeline):
        return
    checked: list[Any] = []
    for step in pipeline:
        if "Load" not in type(step).__name__:
            checked.append(step)
        elif checked and isinstance(checked[-1], CheckedLoading):
            checked[-1].steps.append(step)
        else:  # mmseg validates with labels that are loaded after the image is resized
            checked.append(CheckedLoading([step], log, classes, check_labels, not checked))
    pipeline[:] = checked


class CheckedLoading:
    """The loading steps of a pipeline, with checks of what they find.

    OpenCV fills up the rest of an image that is cut short, and Pillow's labels are cut to 8 bits:
    both would be trained on in silence.

    Args:
        steps: the transforms that load, as in a pipeline.
        log: file for bad samples, one a line: file, tab, what is wrong; None raises BadSample at
            once, which is for validation, where another sample cannot stand in.
        classes: number of classes of label maps, None if they are not checked.
        check_labels: looks at the file of a label map, and raises ImageError.
        files: whether to look at the files before.
    """

    def __init__(
        self,
        steps: list[Any],
        log: Path | None = None,
        classes: int | None = None,
        check_labels: LabelCheck | None = None,
        files: bool = True,
    ) -> None:
        self.steps = steps
        self.log = log
        self.classes = classes
        self.check_labels = check_labels
        self.files = files
        self.in_a_row = 0

    def __call__(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Load a sample; None if it is bad and noted.

        Raises:
            BadSample: if it is bad and there is no log, or too many were bad in a row.
        """
        try:
            loaded = self._load(results)
        except MemoryError:  # of the machine, not of the file
            raise
        except Exception as error:  # decoders raise whatever a broken file leads to
            self._refuse(results, error)
            return None
        self.in_a_row = 0
        return loaded

    def _load(self, results: dict[str, Any]) -> dict[str, Any] | None:
        if self.files:
            require_files(results, self.classes, self.check_labels)
        for step in self.steps:
            loaded = step(results)
            if loaded is None:
                return None
            results = loaded
            require_size(results)  # before masks of a wrong size are made
        require_labels(results, self.classes)
        return results

    def _refuse(self, results: dict[str, Any], error: Exception) -> None:
        named = isinstance(error, ImageError)
        text = error.args[-1] if named else f"{type(error).__name__}: {error}"
        path, why = str(results.get("img_path")), " ".join(str(text).split())
        self.in_a_row += 1
        if self.log is None:
            raise BadSample(f"cannot load {path}: {why}") from error
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as file:  # lines below 4 KB are appended whole, whoever else writes
            file.write(f"{path}\t{why}"[:4000] + "\n")
        if self.in_a_row == _ROW:
            raise BadSample(
                f"{_ROW} samples in a row cannot be loaded, the last one {path}: {why}\n"
                f"All are in {self.log}"
            ) from error


def require_files(
    results: dict[str, Any], classes: int | None, check_labels: LabelCheck | None
) -> None:
    """Raise ImageError if a local image or label map of a sample is missing or cannot be read."""
    for key in ("img_path", "seg_map_path"):
        path = results.get(key)
        if not isinstance(path, str) or "://" in path:
            continue
        found = probe(Path(path), fast=True)
        if found.error:
            which = f"{path}: " * (key == "seg_map_path")  # the image is named anyway
            raise ImageError(found.error, which + found.message)
        if key == "seg_map_path" and classes is not None and check_labels is not None:
            check_labels(Path(path), classes)


def require_size(results: dict[str, Any]) -> None:
    """Raise ImageError if a detection image has not the size that its annotations are for."""
    if "img" not in results or "instances" not in results:
        return
    found, listed = tuple(results["img"].shape[:2]), (results.get("height"), results.get("width"))
    if results.get("ori_shape") == found and None not in listed and listed != found:
        sizes = f"{listed[1]} x {listed[0]} in the annotations, {found[1]} x {found[0]} on disk"
        raise ImageError("image-size", f"{sizes} (EXIF's turn applied)")


def require_labels(results: dict[str, Any], classes: int | None) -> None:
    """Raise ImageError if a label map is not of the image's size, or has numbers of no class."""
    labels = results.get("gt_seg_map")
    if labels is None or classes is None:
        return
    path, image = results.get("seg_map_path"), results["ori_shape"]
    if labels.shape != image:
        sizes = f"{labels.shape[1]} x {labels.shape[0]}, the image {image[1]} x {image[0]}"
        raise ImageError("label-size", f"{path} is {sizes}")
    first = int(bool(results.get("reduce_zero_label")))  # of the first class, in the file
    found = np.bincount(labels.ravel()).nonzero()[0]
    unknown = [number + first for number in found if classes <= number < 255]
    if unknown:
        numbers = ", ".join(map(str, unknown[:8]))
        raise ImageError(
            "label-range",
            f"{path} has {numbers}, but classes are {first}..{classes - 1 + first} and 255 is "
            "ignored" + (", as is 0" if first else ""),
        )
