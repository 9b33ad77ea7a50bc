"""The toolkit from Python: what the commands do, with their flags as keyword arguments.

    from agent_toolkit import Predictor, test, train

    trained = train("agent_pvt_maskrcnn_demo", data="data/demo/coco", epochs=2)
    metrics = test(*trained)
    found = Predictor(*trained)("photo.jpg")

A mistake raises ``UserError``, whose message names flags as the command line has them.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from agent_attention.runtime import Result
from agent_toolkit.commands import test as test_command
from agent_toolkit.commands import train as train_command
from mmengine_agent.errors import UsageError, UserError
from mmengine_agent.predict import model as models
from mmengine_agent.predict.classes import classes_of
from mmengine_agent.resume.newest import POINTER
from mmengine_agent.run import test as test_run
from mmengine_agent.run import train as train_run
from mmengine_agent.run.exit import explain
from mmengine_agent.run.setup import read_config

__all__ = ["Prediction", "Predictor", "Trained", "UserError", "test", "train"]

PathLike = str | Path
SEGMENT_OFFSET = 1000  # mmdet's INSTANCE_OFFSET: a segment is label + so much * its number


class Trained(NamedTuple):
    """What a training leaves: ``test(*trained)`` and ``Predictor(*trained)`` take it."""

    config: Path  # as it was run, in the work directory
    checkpoint: Path  # the newest


def train(
    config: PathLike,
    *,
    data: PathLike | None = None,
    backbone: str | None = None,
    pretrained: PathLike | None = None,
    from_scratch: bool = False,
    epochs: int | None = None,
    iters: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    image_size: tuple[int, int] | None = None,
    workers: int | None = None,
    seed: int | None = None,
    device: str | None = None,
    work_dir: PathLike | None = None,
    resume: bool | PathLike = False,
    cfg_options: Mapping[str, Any] | None = None,
    **flags: Any,
) -> Trained:
    """Train, as ``agent-attention train`` does.

    Args:
        config: a file, or the name of a config that ``agent-attention configs`` lists.
        data: ``--data-root``, the folder of the data set.
        image_size: width and height in pixels of what the network gets.
        cfg_options: settings of the config by their dotted names.
        flags: any other flag of the command, ``train_ann="train.json"`` for ``--train-ann``; the
            other arguments are those of the same names.

    Raises:
        UserError: with what the command would print; also when a signal stops the training, with
            everything saved.
    """
    given = dict(locals())
    with _user_errors():
        args = _parse(train_command.add_flags, ["config"], given)
        if args.find_lr is not None:
            raise UsageError("find_lr is no training: run `agent-attention train --find-lr`")
        cfg = train_run.train(args)
        folder = Path(cfg.work_dir)
        checkpoint = Path((folder / POINTER).read_text().strip())
        return Trained(folder / Path(cfg.filename).name, checkpoint)


def test(
    config: PathLike,
    checkpoint: PathLike,
    *,
    data: PathLike | None = None,
    batch_size: int | None = None,
    image_size: tuple[int, int] | None = None,
    workers: int | None = None,
    device: str | None = None,
    work_dir: PathLike | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    **flags: Any,
) -> dict[str, float]:
    """Test a checkpoint, as ``agent-attention test`` does; the metrics by their names.

    Args:
        config: a file or a name; best the one that training left.
        checkpoint: a file.
        data: ``--data-root``, the folder of the data set.
        flags: any other flag of the command, and so are the other arguments.

    Raises:
        UserError: with what the command would print.
    """
    given = dict(locals())
    with _user_errors():
        return test_run.test(_parse(test_command.add_flags, ["config", "checkpoint"], given))


class Prediction(Result):
    """What a model says of an image.

    Of a panoptic model ``scores`` are None, its N segments are things and stuff, and ``label_map``
    has -1 where it sees no class.
    """

    def to_supervision(self) -> dict[str, Any]:
        """The arguments of ``supervision.Detections``; of a label map, a mask for each class."""
        boxes, labels, masks = self.boxes, self.labels, self.masks
        if labels is None:
            assert self.label_map is not None
            labels = np.unique(self.label_map)
            masks = self.label_map == labels[:, None, None]
            boxes = _boxes_of(masks)
        data = {"class_name": np.array(self.names)[labels]}
        found = {"xyxy": boxes, "class_id": labels, "confidence": self.scores, "mask": masks}
        return {**found, "data": data}


class Predictor:
    """A model with its weights, for images in memory or in files.

    Args:
        config: a file or a name; best the one that training left.
        checkpoint: a file.
        device: 'cpu', 'cuda', 'cuda:1'; 'auto' is a GPU if there is any.
        score_threshold: least score of objects.
        classes: class names, where neither checkpoint nor config has them.
        cfg_options: settings of the config by their dotted names.

    Raises:
        UserError: if the model cannot be built, or the checkpoint does not fit it.
    """

    def __init__(
        self,
        config: PathLike,
        checkpoint: PathLike,
        *,
        device: str = "auto",
        score_threshold: float = 0.3,
        classes: Sequence[str] | None = None,
        cfg_options: Mapping[str, Any] | None = None,
    ) -> None:
        with _user_errors():
            cfg = read_config(str(config), dict(cfg_options or {}))
            where = models.choose_device(device)
            model, meta = models.load_model(cfg, str(checkpoint), where)
            self.names = classes_of(cfg, meta, list(classes) if classes else None).names
            self.score_threshold = score_threshold
            self._predict = models.Predictor(model, cfg)

    def __call__(self, image: PathLike | np.ndarray | Any) -> Prediction:
        """Predict on one image.

        Args:
            image: a file, an array (H, W, 3) uint8 in BGR as OpenCV reads it, or a PIL image.

        Raises:
            UserError: if it is none of these, or memory runs out.
        """
        with _user_errors():
            return self._of_sample(self._predict([self._read(image)])[0])

    def _read(self, image: Any) -> np.ndarray:
        if isinstance(image, str | Path):
            return self._predict.load(Path(image))
        pixels: np.ndarray = image
        if hasattr(image, "convert"):  # a PIL image
            pixels = np.asarray(image.convert("RGB"))[..., ::-1].copy()
        is_image = getattr(pixels, "dtype", None) == np.uint8 and pixels.shape[2:] == (3,)
        if not is_image or not pixels.size:
            raise UserError(
                "an image is a file, an array (H, W, 3) of uint8 in BGR or a PIL image; got "
                f"{getattr(pixels, 'dtype', type(image).__name__)} {getattr(pixels, 'shape', '')}"
            )
        return pixels

    def _of_sample(self, sample: Any) -> Prediction:
        if "pred_sem_seg" in sample:
            label_map = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.int64)
            return Prediction(self.names, label_map=label_map)
        if "pred_panoptic_seg" in sample:
            return self._of_segments(sample.pred_panoptic_seg.sem_seg[0].cpu().numpy())
        if "pred_instances" not in sample:
            raise UserError("the model predicts neither objects nor labels of pixels")
        found = sample.pred_instances
        found = found[found.scores >= self.score_threshold]
        found = found[found.scores.argsort(descending=True)].cpu()
        masks = np.asarray(found.masks).astype(bool) if "masks" in found else None
        boxes, scores, labels = (
            getattr(found, name).numpy() for name in ("bboxes", "scores", "labels")
        )
        return Prediction(self.names, boxes, scores, labels, masks)

    def _of_segments(self, ids: np.ndarray) -> Prediction:
        label_map = (ids % SEGMENT_OFFSET).astype(np.int64)
        label_map[label_map >= len(self.names)] = -1
        found = np.unique(ids[label_map >= 0])
        masks, labels = ids == found[:, None, None], (found % SEGMENT_OFFSET).astype(np.int64)
        return Prediction(self.names, _boxes_of(masks), None, labels, masks, label_map)


class _Parser(ArgumentParser):
    """A parser for flags that are no words of a command line: what it refuses is an exception."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def _parse(add_flags: Any, positionals: Sequence[str], given: dict[str, Any]) -> Namespace:
    """A function's arguments as the command's parser reads them; None and False are not given."""
    options, words = given.pop("cfg_options"), [str(given.pop(name)) for name in positionals]
    given |= given.pop("flags")
    given["data_root"] = given.pop("data") or given.get("data_root")
    for name, value in given.items():
        if value is not None and value is not False:
            values = value if isinstance(value, list | tuple) else [] if value is True else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    parser = _Parser(allow_abbrev=False, add_help=False)
    add_flags(parser)
    args = parser.parse_args(words)
    args.cfg_options = dict(options) if options else None
    return args


@contextmanager
def _user_errors() -> Iterator[None]:
    """Have what the commands would print as a message raised as ``UserError``."""
    try:
        yield
    except SystemExit as stop:
        raise UserError("stopped by a signal, with everything saved: resume=True goes on") from stop
    except UserError:
        raise
    except Exception as error:
        text = explain(error)
        if text is None:
            raise
        raise UserError(text) from error


def _boxes_of(masks: np.ndarray) -> np.ndarray:
    """x1, y1, x2, y2 (N, 4), float32, of masks (N, H, W) that are not empty."""
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return np.array(boxes, np.float32).reshape(-1, 4)
