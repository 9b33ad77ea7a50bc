"""A model with the weights of a checkpoint, and its predictions on images in memory."""

from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from torch import nn

from agent_attention.weights.fit import unwrap
from mmengine_agent.checkpoints import load_local
from mmengine_agent.config_walk import type_name
from mmengine_agent.data.user_data import datasets
from mmengine_agent.errors import UserError, one_line
from mmengine_agent.task import task_of

_RESIZES = {"Resize", "FixScaleResize", "FixShapeResize", "ResizeShortestEdge"}
_STRIDE = 32  # of the deepest maps of usual models


def choose_device(name: str) -> torch.device:
    """The device of that name; for 'auto' the GPU, or the CPU where there is none.

    Raises:
        UserError: if there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    # torch raises any of these, by the kind of device that it cannot use
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: torch cannot use it here") from error


def load_model(
    cfg: Config, checkpoint: str | None, device: torch.device
) -> tuple[Any, dict[str, Any]]:
    """A model in evaluation mode, and the meta data of its checkpoint; without one, random weights.

    Raises:
        UserError: if the model cannot be built, or the checkpoint cannot be read or does not fit.
    """
    if checkpoint is None:
        return build_model(cfg).to(device).eval(), {}
    if not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint} (from {Path.cwd()})")
    try:
        content = load_local(checkpoint)
        weights = unwrap(content, backbone=False)
    except ValueError as error:
        raise UserError(f"cannot load {checkpoint}: {error}") from error
    model = build_model(cfg)
    require_fit(model, weights, checkpoint)
    model.load_state_dict(weights, strict=False)
    meta = content.get("meta")
    return model.to(device).eval(), meta if isinstance(meta, dict) else {}


def build_model(cfg: Config) -> Any:
    """The model of a config; without init_weights, so no file of pre-trained weights is needed."""
    init_default_scope(cfg.get("default_scope") or "mmdet")
    try:
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    except (TypeError, ValueError, LookupError, AssertionError, ImportError) as error:
        raise UserError(f"cannot build what the config describes: {one_line(error)}") from error
    task_of(cfg).guard_model(model)
    return model


def require_fit(model: nn.Module, found: dict[str, torch.Tensor], path: str) -> None:
    """Raise UserError if the checkpoint lacks any of the model's weights or statistics."""
    parameters = dict(model.named_parameters())
    wanted = {
        name: value
        for name, value in model.state_dict().items()
        if name in parameters or name.endswith((".running_mean", ".running_var"))
    }
    missing = sorted(wanted.keys() - found.keys())
    other = sorted(n for n in wanted.keys() & found.keys() if wanted[n].shape != found[n].shape)
    if missing or other:
        faults = f"{len(missing)} of {len(wanted)} weights are missing and {len(other)} differ"
        raise UserError(
            f"{path} does not fit the config: {faults} ({', '.join((missing + other)[:5])}, ...). "
            "The config that training wrote next to the checkpoint fits it"
        )


class Predictor:
    """Runs a model on images in memory, each as the config's test pipeline prepares it.

    Neighbours of one size after the pipeline go through the model together; others never do, since
    padding to a neighbour's size changes predictions.

    Args:
        model: the model.
        cfg: its config.
        full_size: whether an image that the pipeline would make smaller keeps its size.
    """

    def __init__(self, model: Any, cfg: Config, full_size: bool = False) -> None:
        pipeline = dataset_of(cfg).pipeline
        loaders = (step for step in pipeline if "LoadImage" in str(step["type"]))
        loader: dict[str, Any] = next(loaders, {})
        array = {"type": "LoadImageFromNDArray", "to_float32": loader.get("to_float32", False)}
        # annotations are for training and testing
        rest = [step for step in pipeline if "Load" not in str(step["type"])]
        self.model = model
        self.prepare = Compose([array, *rest])
        self.keep_size = Compose([array, *map(_without_resizing, rest)]) if full_size else None
        file = {"type": "LoadImageFromFile", **loader, "to_float32": False}
        self.read_file = TRANSFORMS.build(file)

    def load(self, path: Path) -> np.ndarray:
        """An image (H, W, 3) uint8 BGR, read as the config does.

        Raises:
            UserError: if it cannot be read.
        """
        try:
            return self.read_file({"img_path": str(path)})["img"]
        except Exception as error:  # decoders raise whatever they like
            raise UserError(f"{path}: cannot be read as an image") from error

    def __call__(self, images: list[np.ndarray]) -> list[Any]:
        """A data sample for each image (H, W, 3) uint8 BGR, with predictions at its own size.

        Raises:
            UserError: if memory runs out.
        """
        packed = [self._pack(image) for image in images]
        alike = groupby(packed, key=lambda each: each["inputs"].shape)
        return [sample for _, some in alike for sample in self._run(list(some))]

    def pixels(self, height: int, width: int) -> int:
        """How many pixels the model sees of an image."""
        blank = np.zeros((height, width, 3), np.uint8)
        return prod(self._pack(blank)["inputs"].shape[1:])

    def _pack(self, image: np.ndarray) -> Any:
        packed = self.prepare({"img": image, "img_id": 0})
        if self.keep_size and prod(packed["inputs"].shape[1:]) < prod(image.shape[:2]):
            packed = self.keep_size({"img": image, "img_id": 0})
        return packed

    def _run(self, packed: list[Any]) -> list[Any]:
        try:
            with torch.no_grad():
                return self.model.test_step(pseudo_collate(packed))
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            height, width = packed[0]["inputs"].shape[1:]
            raise UserError(
                f"memory ran out on {len(packed)} x {height} x {width} pixels: "
                "take a smaller --batch-size, or cut large images up with --tile or --max-memory"
            ) from error


def _without_resizing(step: Any) -> Any:
    """A step of a pipeline that makes no image smaller; what it pads to one size, to a stride."""
    if type_name(step) in _RESIZES:
        return {"type": "Resize", "scale_factor": 1.0, "keep_ratio": True}
    if type_name(step) == "Pad" and step.get("size"):
        return {**step, "size": None, "size_divisor": _STRIDE}
    return step


def dataset_of(cfg: Config) -> Any:
    """The data set of a config's test loader; wrappers such as ConcatDataset are opened.

    Raises:
        UserError: if the config has none, or one without a pipeline.
    """
    dataset: Any = next((each for split, each in datasets(cfg) if split == "test"), {})
    if "pipeline" not in dataset:
        raise UserError("the config has no test_dataloader with a pipeline to predict with")
    return dataset
