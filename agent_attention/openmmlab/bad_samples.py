"""Samples that cannot be loaded: the run stops and names them, or leaves them out and counts them.

Workers of data loaders are processes of their own. What they find they append to a file of their
rank in the work directory, so nothing is lost if the run ends; a hook reads it in the main process,
where all ranks stop at the same iteration. mmengine's data sets draw another sample when a pipeline
gives None.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from PIL import Image

from agent_attention.openmmlab.errors import BadSample, UserError
from agent_attention.openmmlab.prepare.ade import read_label
from agent_attention.openmmlab.prepare.images import Trouble, probe

_ROW = 100  # bad samples one after the other: then it is no longer a matter of single files
_SHOWN = 10


def log_of(folder: str) -> Path:
    """The file in which this rank notes bad samples, one a line: file, tab, what is wrong."""
    return Path(folder, f"bad_samples.{get_rank()}.txt")


@TRANSFORMS.register_module()
class CheckedLoading:
    """The loading steps of a pipeline, with checks of what they find.

    OpenCV fills up the rest of an image that is cut short, and Pillow's labels are cut to 8 bits:
    both would be trained on without a word.

    Args:
        steps: the transforms that load, as in a pipeline.
        log_dir: folder for the file of ``log_of``; None raises BadSample at once, which is for
            validation, where another sample cannot stand in.
        classes: number of classes of label maps, None if they are not checked.
    """

    def __init__(
        self, steps: list[Any], log_dir: str | None = None, classes: int | None = None
    ) -> None:
        self.steps = Compose(steps).transforms
        self.log = log_of(log_dir) if log_dir else None
        self.classes = classes
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
        require_files(results, self.classes)
        for step in self.steps:
            loaded = step(results)
            if loaded is None:
                return None
            results = loaded
            require_size(results)  # before masks of a wrong size are made
        require_labels(results, self.classes)
        return results

    def _refuse(self, results: dict[str, Any], error: Exception) -> None:
        path, why = str(results.get("img_path")), _words(error)
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


def require_files(results: dict[str, Any], classes: int | None) -> None:
    """Raise Trouble if a local image or label map of a sample is missing, cut short or no image."""
    for key in ("img_path", "seg_map_path"):
        path = results.get(key)
        if not isinstance(path, str) or "://" in path:
            continue
        found = probe(Path(path), fast=True)
        if found.trouble:
            raise Trouble(found.trouble, f"{path}: {found.message}")
        if key == "seg_map_path" and classes is not None:
            _require_plain(Path(path), classes)


def require_size(results: dict[str, Any]) -> None:
    """Raise Trouble if a detection image has not the size that its annotations are for."""
    if "img" not in results or "instances" not in results:
        return
    found, said = tuple(results["img"].shape[:2]), (results.get("height"), results.get("width"))
    if results.get("ori_shape") == found and None not in said and said != found:
        sizes = f"{said[1]} x {said[0]} in the annotations, {found[1]} x {found[0]} on disk"
        raise Trouble("image-size", f"{sizes} (EXIF's turn applied)")


def require_labels(results: dict[str, Any], classes: int | None) -> None:
    """Raise Trouble if a label map is not of the image's size, or has numbers of no class."""
    labels = results.get("gt_seg_map")
    if labels is None or classes is None:
        return
    path, image = results.get("seg_map_path"), results["img"].shape[:2]
    if labels.shape != image:
        sizes = f"{labels.shape[1]} x {labels.shape[0]}, the image {image[1]} x {image[0]}"
        raise Trouble("label-size", f"{path} is {sizes}")
    first = int(bool(results.get("reduce_zero_label")))  # of the first class, in the file
    odd = [number for number in np.bincount(labels.ravel()).nonzero()[0] if classes <= number < 255]
    if odd:
        numbers = ", ".join(str(number + first) for number in odd[:8])
        raise Trouble(
            "label-range",
            f"{path} has {numbers}, but classes are {first}..{classes - 1 + first} and 255 is "
            "ignored" + (", as is 0" if first else ""),
        )


def _require_plain(path: Path, classes: int) -> None:
    """Raise Trouble if labels are colours or deeper than 8 bits."""
    with Image.open(path) as image:
        if image.mode in {"L", "P", "1"}:
            return
    for kind, message in read_label(path, classes).faults:
        if kind != "label-empty":
            raise Trouble(kind, f"{path}: {message}")


def _words(error: Exception) -> str:
    if isinstance(error, Trouble):
        text = ": ".join(map(str, error.args))
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())


@HOOKS.register_module()
class BadSamplesHook(Hook):
    """Stops the run at bad samples, on all ranks at once, or reports how many were left out.

    Args:
        policy: 'error' or 'skip'.
        log_dir: as ``CheckedLoading`` has it.
        interval: iterations between looks at the other ranks' files.
    """

    priority = "VERY_HIGH"

    def __init__(self, policy: str, log_dir: str, interval: int = 10) -> None:
        self.policy = policy
        self.log = log_of(log_dir)
        self.interval = interval
        self.begin = self.told = self._size()  # what an earlier run left is not of this one

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Look at what the workers have noted."""
        if get_world_size() == 1 or runner.iter % self.interval == 0:
            self._look(runner)

    def after_train(self, runner: Any) -> None:
        """Look once more, and report the whole run."""
        self._look(runner)
        if self.policy == "skip":
            lines = self._gather(self.begin)
            runner.logger.warning(f"bad samples: {summary(lines)}" + self._place(lines))

    def _look(self, runner: Any) -> None:
        if self.policy == "error":
            self._stop_if_any()
        elif self._size() > self.told:
            runner.logger.warning(f"left out: {summary(self._lines(self.told))}")
            self.told = self._size()

    def _stop_if_any(self) -> None:
        lines = self._gather(self.begin) if self._any() else []
        if lines:
            raise UserError(
                f"cannot load {summary(lines)}\n"
                "`python tools/prepare_data.py check` finds all of them at once; "
                "--on-bad-sample=skip trains without them" + self._place(lines)
            )

    def _any(self) -> bool:
        mine = self._size() > self.begin
        return any(_gathered(mine)) if get_world_size() > 1 else mine

    def _gather(self, start: int) -> list[str]:
        return [line for lines in _gathered(self._lines(start)) for line in lines]

    def _lines(self, start: int) -> list[str]:
        """Whole lines from a place in the file on."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace").splitlines()

    def _size(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def _place(self, lines: list[str]) -> str:
        return f"\nAll are in {self.log.parent / 'bad_samples.*.txt'}" if lines else ""


def summary(lines: list[str]) -> str:
    """Lines of a log in words: how many times, how many files, and the first of them."""
    if not lines:
        return "none were left out"
    times = Counter(lines)
    told = [
        f"  {line.replace(chr(9), ': ', 1)}" + (f" ({count} times)" if count > 1 else "")
        for line, count in list(times.items())[:_SHOWN]
    ]
    more = [f"  and {len(times) - _SHOWN} more"] if len(times) > _SHOWN else []
    return "\n".join([f"{len(times)} samples (met {len(lines)} times):", *told, *more])


def _gathered(value: Any) -> list[Any]:
    """What every rank has; all must ask."""
    return all_gather_object(value) if get_world_size() > 1 else [value]
