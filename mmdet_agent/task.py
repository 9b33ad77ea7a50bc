"""Detection and instance segmentation, on COCO-like data."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmdet_agent import export, flops, tta
from mmdet_agent.data import config
from mmdet_agent.evaluation.record import DetectionRecord, record_of
from mmdet_agent.no_detections import NoDetectionsHook
from mmdet_agent.predict.classes import category_ids
from mmdet_agent.predict.writer import DetectionWriter
from mmengine_agent.errors import Problem
from mmengine_agent.export.modules import Exported
from mmengine_agent.predict.classes import Classes
from mmengine_agent.task import Task


class Detection(Task):
    """mmdet's part of what ``Task`` asks."""

    name = "detection"
    scope = "mmdet"
    layout = """
    {root}/
        annotations/instances_train2017.json, instances_val2017.json
        train2017/*.jpg
        val2017/*.jpg"""
    main_score = "coco/bbox_mAP"
    perfect_score = 1.0
    flops_shape = (800, 1280)
    dump = "DumpDetResults"

    def point_at(self, cfg: Config, flags: Any) -> Sequence[str] | None:
        return config.point_at(cfg, flags)

    def data_problems(self, cfg: Config, splits: Sequence[str]) -> Iterator[Problem]:
        return config.data_problems(cfg, splits)

    def label_numbers(self, cfg: Config, names: tuple[str, ...]) -> tuple[int, ...]:
        return category_ids(cfg, names)

    def hooks(self) -> list[Hook]:
        return [NoDetectionsHook()]

    def record(self, metric: BaseMetric, runner: Runner, cfg: Config) -> DetectionRecord | None:
        return record_of(metric, runner, cfg)

    def show_predictions(self, cfg: Config, folder: str) -> None:
        # mmdet joins work_dir, a timestamp and test_out_dir: an absolute path wins the join
        cfg.default_hooks.visualization.test_out_dir = str(Path(folder).resolve())

    def tta_model(self, cfg: Config) -> dict[str, Any]:
        return tta.tta_model(cfg)

    def tta_step(self, step: Any) -> Any:
        return tta.with_flip(step)

    def before_tta(self, cfg: Config) -> None:
        tta.drop_masks(cfg)

    def writer(self, classes: Classes, model: nn.Module, threshold: float) -> DetectionWriter:
        return DetectionWriter(classes, threshold)

    def exported(self, model: nn.Module, normalise: nn.Module, labels: bool) -> Exported:
        return export.exported(model, normalise, labels)

    def run_for_flops(self, model: Any, shape: tuple[int, int]) -> None:
        flops.run_detector(model, shape)


TASK = Detection()
