"""Test-time augmentation of detectors: mmdet merges boxes, not masks."""

from typing import Any

from mmengine.config import Config

_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
_NMS = {"type": "nms", "iou_threshold": 0.5}


def tta_model(cfg: Config) -> dict[str, Any]:
    """The wrapper that merges the boxes of all views of an image."""
    test = cfg.model.get("test_cfg", {})
    most = test.get("rcnn", test).get("max_per_img", 100)
    return {"type": "DetTTAModel", "tta_cfg": {"nms": _NMS, "max_per_img": most}}


def with_flip(step: Any) -> Any:
    """What packs the views must say how each was flipped."""
    return {**step, "meta_keys": _META} if step["type"] == "PackDetInputs" else step


def drop_masks(cfg: Config) -> None:
    """No mask head and no mask AP: mmdet's wrapper refuses predictions with masks."""
    for part in ("mask_head", "mask_roi_extractor"):
        cfg.model.module.get("roi_head", {}).pop(part, None)
    evaluators = cfg.test_evaluator
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        metric = evaluator.get("metric")
        if isinstance(metric, list | tuple) and "segm" in metric:
            evaluator.metric = [name for name in metric if name != "segm"]
            print("--tta: masks are not merged, boxes alone are evaluated")
