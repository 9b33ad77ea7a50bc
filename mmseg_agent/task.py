"""Semantic segmentation, on ADE20K-like data."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmseg.evaluation import IoUMetric
from torch import nn

from mmengine_agent.data.checked_loading import LabelCheck
from mmengine_agent.errors import UserError
from mmengine_agent.predict.classes import Classes
from mmengine_agent.task import Score, Task
from mmseg_agent.data import config, label_maps
from mmseg_agent.evaluation.record import SegmentationRecord
from mmseg_agent.export import Segmentor
from mmseg_agent.predict.labels import leave_out_scores
from mmseg_agent.predict.writer import SegmentationWriter, map_numbers


class Segmentation(Task):
    """mmseg's part of what ``Task`` asks."""

    name = "segmentation"
    scope = "mmseg"
    form, known = "ade20k", ("ADE20KDataset", "NamedSegDataset")
    layout = """
    {root}/
        images/training/*.jpg, images/validation/*.jpg
        annotations/training/*.png, annotations/validation/*.png  (0 = ignore, 1 = first class)
    others: --labels-from 0, --palette FILE"""
    scores: ClassVar = {"IoUMetric": Score("{metric}", 100.0, "mIoU")}
    flops_shape = (512, 2048)
    dump = "DumpResults"

    point_at = staticmethod(config.point_at)
    data_problems = staticmethod(config.data_problems)
    label_numbers = staticmethod(map_numbers)
    save_memory = staticmethod(leave_out_scores)

    def label_check(self, names: Sequence[str] | None) -> LabelCheck:
        return partial(label_maps.require_label, names)

    def record(self, metric: BaseMetric) -> type[SegmentationRecord] | None:
        return SegmentationRecord if isinstance(metric, IoUMetric) else None

    def show_predictions(self, cfg: Config, folder: str) -> None:
        cfg.visualizer.save_dir = folder

    def tta_model(self, cfg: Config) -> dict[str, Any]:
        return {"type": "SegTTAModel"}

    def writer(self, classes: Classes, model: Any, threshold: float) -> SegmentationWriter:
        return SegmentationWriter(classes, threshold)

    def exported(self, model: nn.Module, prepare: nn.Module, outputs: str) -> Segmentor:
        if outputs == "raw":
            raise UserError("--raw is for detectors; the config is of a segmentor")
        if not hasattr(model, "encode_decode"):
            raise UserError(f"cannot export a {type(model).__name__}: it has no encode_decode")
        return Segmentor(model, prepare, outputs)

    def run_for_flops(self, model: Any, shape: tuple[int, int], device: str) -> None:
        image, meta = torch.zeros(1, 3, *shape, device=device), {"img_shape": shape}
        model.encode_decode(image, [meta])  # no auxiliary head


TASK = Segmentation()
