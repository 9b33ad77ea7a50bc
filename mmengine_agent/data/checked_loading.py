"""Loading with checks: files that decoders fill up or cut off in silence are found here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dataset import Compose

from mmengine_agent.data.images import IMAGES, ImageError, measure, open_whole
from mmengine_agent.errors import BadSample

# looks at the file of a label map, given its image's size and the loader's results
LabelCheck = Callable[[Path, Any, dict[str, Any]], None]
_ROW = 100  # bad samples one after the other: then it is no longer a matter of single files


def check_loading(dataset: Any, log: Path | None, check_label: LabelCheck | None = None) -> None:
    """Put a ``CheckedPipeline`` in place of a data set's pipeline; twice changes nothing.

    Args:
        dataset: of mmengine's kind; sets within it are looked for.
        log: as ``CheckedPipeline`` has it.
        check_label: likewise.
    """
    for each in getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]:
        if each is not None:
            check_loading(each, log, check_label)
    pipeline = getattr(dataset, "pipeline", None)
    if isinstance(pipeline, Compose):
        dataset.pipeline = CheckedPipeline(pipeline.transforms, log, check_label)


class CheckedPipeline:
    """A pipeline, with a look at the files before.

    OpenCV fills up the rest of an image that is cut short, and Pillow's labels are cut to 8 bits:
    both would be trained on in silence.

    Args:
        transforms: the steps.
        log: file for bad samples, one a line: file, tab, what is wrong; None raises BadSample at
            once, which is for validation too, where another sample cannot stand in.
        check_label: looks at the file of a label map, and raises ImageError.
    """

    def __init__(
        self, transforms: list[Any], log: Path | None = None, check_label: LabelCheck | None = None
    ) -> None:
        self.transforms = transforms
        self.log = log
        self.check_label = check_label
        self.in_a_row = 0

    def __call__(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Load and transform a sample; None if it is bad and noted.

        Raises:
            BadSample: if it is bad and there is no log, or too many were bad in a row.
        """
        found, loads = results, True
        try:
            require_files(results, self.check_label)
            for step in self.transforms:
                loads = "Load" in type(step).__name__
                found = step(found)
                if found is None:
                    return None
        except MemoryError:  # of the machine, not of the file
            raise
        except Exception as error:  # decoders raise whatever a broken file leads to
            if not loads:
                raise
            self._refuse(str(results.get("img_path")), error)
            return None
        self.in_a_row = 0
        return found

    def _refuse(self, path: str, error: Exception) -> None:
        known = isinstance(error, ImageError)
        text = error.args[-1] if known else f"{type(error).__name__}: {error}"
        text = text.removeprefix(f"{path}: ")
        line = f"{path}\t{' '.join(text.split())}"[:4000]
        self.in_a_row += 1
        if self.log is None:
            raise BadSample(
                f"cannot load {line}\n`python tools/prepare_data.py check` finds all at once; "
                "in training, --on-bad-sample=skip leaves them out".replace("\t", ": ")
            ) from error
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as file:  # lines below 4 KB are appended whole, whoever else writes
            file.write(line + "\n")
        if self.in_a_row == _ROW:
            raise BadSample(
                f"{_ROW} samples in a row cannot be loaded; all are in {self.log}, the last one:\n"
                + line.replace("\t", ": ")
            ) from error


def require_files(results: dict[str, Any], check_label: LabelCheck | None) -> None:
    """Look at the files of a sample, those that are local.

    Raises:
        ImageError: if an image or label map is missing, is not whole, or is not of the size or
            the classes that it is to be of.
    """
    size, listed = None, (results.get("width"), results.get("height"))
    image, label = map(_local, (results.get("img_path"), results.get("seg_map_path")))
    if image:
        size, _ = measure(image, fast=True)
        if "instances" in results and None not in listed and listed != size:
            text = f"{listed[0]} x {listed[1]} in the annotations, {size[0]} x {size[1]} on disk"
            raise ImageError("image-size", f"{text} (EXIF's turn applied)")
    if label and check_label:
        check_label(label, size, results)
    elif label:
        open_whole(label, fast=True)


def _local(path: Any) -> Path | None:
    """The path of a local file that Pillow reads; of volumes and the like, None."""
    if not isinstance(path, str) or "://" in path or Path(path).suffix.lower() not in IMAGES:
        return None
    return Path(path)
