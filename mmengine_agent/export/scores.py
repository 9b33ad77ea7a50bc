"""Scores of exported files, by the data set and the evaluator of their config."""

import io
from argparse import Namespace
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData

from agent_attention.runtime import Model, Result, RuntimeUserError
from mmengine_agent.class_counts import class_total
from mmengine_agent.errors import UserError


@MODELS.register_module()
class ExportedModel(BaseModel):
    """A file of ``tools/export.py`` in the place of a config's model, to be tested.

    It reads the images itself and prepares them by what the file says, as a device does.
    """

    def __init__(self, file: str) -> None:
        super().__init__()
        self.runtime = load_exported(file)

    def test_step(self, data: Mapping[str, Any]) -> list[Any]:
        """The data samples of a batch, with predictions at the sizes of the images' files."""
        samples = list(data["data_samples"])
        found = self.runtime([sample.img_path for sample in samples], score_threshold=0.0)
        for sample, result in zip(samples, found, strict=True):
            add_prediction(sample, result)
        return samples

    def forward(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("an exported model is run by test_step")


def add_prediction(sample: Any, found: Result) -> None:
    """Put a result into a data sample, as mmdet's and mmseg's models do."""
    values = {"bboxes": found.boxes, "scores": found.scores, "labels": found.labels}
    if found.masks is not None:
        values["masks"] = found.masks
    if found.label_map is None:
        tensors = {name: torch.as_tensor(value) for name, value in values.items()}
        sample.pred_instances = InstanceData(**tensors)
    else:
        sample.pred_sem_seg = PixelData(data=torch.as_tensor(found.label_map)[None])


def load_exported(file: str | Path) -> Model:
    """An exported model.

    Raises:
        UserError: if the runtime cannot load it.
    """
    try:
        return Model(file)
    except RuntimeUserError as error:
        raise UserError(str(error)) from error


def is_exported(checkpoint: str) -> bool:
    """Whether a file is none of weights but an exported model."""
    return Path(checkpoint).suffix == ".onnx"


def require_exported(cfg: Config, args: Namespace) -> None:
    """Raise UserError if a file of the flags cannot be tested on the data of a config."""
    for flag, given in (("--tta", args.tta), ("--image-size", args.image_size)):
        if given:
            raise UserError(f"{flag}: {args.checkpoint} says itself how images are prepared")
    if args.launcher != "none":
        raise UserError(f"--launcher: {args.checkpoint} is tested by one process")
    names, wanted = load_exported(args.checkpoint).names, class_total(cfg.model)
    if wanted and len(names) != wanted:
        raise UserError(f"{args.checkpoint} has {len(names)} classes, and the config {wanted}")


def use_exported(cfg: Config, file: str) -> None:
    """Have the runner of a config test an exported file, in place."""
    cfg.model, cfg.load_from = {"type": "mmengine.ExportedModel", "file": file}, None


def score(cfg: Config, file: Path) -> dict[str, float]:
    """The metrics of an exported file on the test data of a config, without a run's folder."""
    init_default_scope(cfg.get("default_scope") or "mmdet")
    model = ExportedModel(str(file))
    with redirect_stdout(io.StringIO()):  # pycocotools prints how far it is
        loader = Runner.build_dataloader(cfg.test_dataloader)
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = loader.dataset.metainfo
        for data in loader:
            evaluator.process(data_samples=model.test_step(data), data_batch=data)
        metrics = evaluator.evaluate(len(loader.dataset))
    return {name: float(value) for name, value in metrics.items()}
