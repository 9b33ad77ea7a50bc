"""Detection and instance segmentation, on COCO-like data."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmdet.evaluation import CocoMetric, CocoPanopticMetric
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from torch import nn

from mmdet_agent.data import config
from mmdet_agent.data.problems import data_problems
from mmdet_agent.evaluation.panoptic import PanopticMetric
from mmdet_agent.evaluation.panoptic_record import PanopticRecord
from mmdet_agent.evaluation.record import DetectionRecord
from mmdet_agent.export import raw, whole
from mmdet_agent.no_detections import NoDetectionsHook
from mmdet_agent.predict.masks import paste_one_by_one
from mmdet_agent.predict.panoptic import PanopticWriter
from mmdet_agent.predict.writer import DetectionWriter, category_ids
from mmdet_agent.queries import guard_queries, query_problems
from mmengine_agent.errors import Problem, UserError
from mmengine_agent.export.modules import Exported
from mmengine_agent.predict.classes import Classes
from mmengine_agent.predict.writer import Writer
from mmengine_agent.report.record import Record
from mmengine_agent.task import Score, Task

_PROPOSALS, _MASKS = 1000, 100  # of an image in the published counts


class Detection(Task):
    """mmdet's part of what ``Task`` asks."""

    name = "detection"
    scope = "mmdet"
    form, known = "coco", ("CocoDataset",)
    layout = """
    {root}/
        annotations/instances_train2017.json, instances_val2017.json
        train2017/*.jpg
        val2017/*.jpg"""
    scores: ClassVar = {
        "CocoMetric": Score("coco/{metric}_mAP", 1.0),
        "FasterCocoMetric": Score("coco/{metric}_mAP", 1.0),
        "CocoPanopticMetric": Score("coco_panoptic/PQ", 100.0),
        "LVISMetric": Score("lvis/{metric}_AP", 1.0),
        "VOCMetric": Score("pascal_voc/mAP", 1.0),
        "CityScapesMetric": Score("cityscapes/mAP", 1.0),
        "OpenImagesMetric": Score("openimages/mAP", 1.0),
        "CrowdHumanMetric": Score("crowd_human/mAP", 1.0),
    }
    flops_shape = (800, 1280)
    dump = "DumpDetResults"

    point_at = staticmethod(config.point_at)
    label_numbers = staticmethod(category_ids)
    guard_model = staticmethod(guard_queries)

    def data_problems(self, cfg: Config, splits: Sequence[str]) -> Iterator[Problem]:
        return chain(data_problems(cfg, splits), query_problems(cfg, splits))

    def hooks(self) -> list[Hook]:
        return [NoDetectionsHook()]

    def record(self, metric: BaseMetric) -> type[Record] | None:
        if isinstance(metric, CocoPanopticMetric | PanopticMetric) and metric._coco_api is not None:
            return PanopticRecord
        # subclasses of CocoMetric score in ways of their own
        return DetectionRecord if type(metric) is CocoMetric and "bbox" in metric.metrics else None

    def show_predictions(self, cfg: Config, folder: str) -> None:
        # mmdet joins work_dir, a timestamp and test_out_dir: an absolute path wins the join
        cfg.default_hooks.visualization.test_out_dir = str(Path(folder).resolve())

    def tta_model(self, cfg: Config) -> dict[str, Any]:
        test = cfg.model.get("test_cfg", {})
        most = test.get("rcnn", test).get("max_per_img", 100)
        nms = {"type": "nms", "iou_threshold": 0.5}
        return {"type": "DetTTAModel", "tta_cfg": {"nms": nms, "max_per_img": most}}

    def tta_step(self, step: Any) -> Any:
        # mmdet's own keys say how each view was flipped, a config's for testing may not
        own = ("meta_keys",) if step["type"] == "PackDetInputs" else ()
        return {key: value for key, value in step.items() if key not in own}

    def before_tta(self, cfg: Config) -> None:
        # no mask head and no mask AP: mmdet's wrapper refuses predictions with masks
        model, evaluators = cfg.model.module, cfg.test_evaluator
        for part in ("mask_head", "mask_roi_extractor"):
            model.get("roi_head", {}).pop(part, None)
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            metric = evaluator.get("metric")
            if "roi_head" not in model and ("segm" in (metric or ()) or "panoptic_head" in model):
                raise UserError(
                    "--tta: mmdet merges the boxes of several views, but no masks, and a "
                    f"{model.type} cannot leave its masks out"
                )
            if isinstance(metric, list | tuple) and "segm" in metric:
                evaluator.metric = [name for name in metric if name != "segm"]
                print("--tta: masks are not merged, boxes alone are evaluated")

    def writer(self, classes: Classes, model: nn.Module, threshold: float) -> Writer:
        kind = PanopticWriter if is_panoptic(model) else DetectionWriter
        return kind(classes, threshold)

    def save_memory(self, model: Any) -> None:
        if not hasattr(model, "panoptic_fusion_head"):  # which reads masks of the image's size
            paste_one_by_one(model)

    def exported(self, model: nn.Module, prepare: nn.Module, outputs: str) -> Exported:
        if outputs in ("labels", "probabilities"):
            raise UserError(f"--{outputs} is for segmentors; the config is of a detector")
        return raw(model, prepare) if outputs == "raw" else whole(model, prepare)

    def run_for_flops(self, model: Any, shape: tuple[int, int], device: str) -> None:
        image = torch.zeros(1, 3, *shape, device=device)
        sizes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), shape)
        sample = DetDataSample(metainfo={**sizes, "scale_factor": (1.0, 1.0), "border": [0] * 4})
        nothing = {"bboxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
        sample.gt_instances = InstanceData(**nothing)  # some heads ask for it in a raw run
        roi = getattr(model, "roi_head", None)
        if roi is None and device != "meta":
            model.predict(image, [sample])
            return
        if roi is None or device != "meta":
            model._forward(image, [sample])
            return
        model.rpn_head(model.extract_feat(image))
        for head in _as_list(roi.bbox_head):
            head(torch.empty(_PROPOSALS, head.in_channels, *head.roi_feat_size, device="meta"))
        if roi.with_mask:
            # in testing a cascade uses the mask heads of all its stages
            extractors = _as_list(roi.mask_roi_extractor)
            for head, extractor in zip(_as_list(roi.mask_head), extractors, strict=True):
                size = extractor.roi_layers[0].output_size
                head(torch.empty(_MASKS, head.in_channels, *size, device="meta"))


def is_panoptic(model: Any) -> bool:
    """Whether a model predicts things and stuff together."""
    fusion = getattr(model, "panoptic_fusion_head", None)
    if fusion is None:
        return False
    return bool((fusion.test_cfg or {}).get("panoptic_on", fusion.num_stuff_classes > 0))


def _as_list(heads: Any) -> list[Any]:
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


TASK = Detection()
