"""Test-time augmentation: several scales, each mirrored too, from a config's own test pipeline."""

from typing import Any

from mmengine.config import Config, ConfigDict

from mmengine_agent.data.user_data import is_coco
from mmengine_agent.errors import UserError

SCALES = (0.75, 1.0, 1.25)  # of the size a config tests at
_META = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
_NMS = {"type": "nms", "iou_threshold": 0.5}


def set_tta(cfg: Config) -> None:
    """Test with the config's ``tta_model`` and ``tta_pipeline``, or with SCALES and mirroring.

    mmdet merges boxes, not masks, so that detectors are then evaluated on boxes alone.

    Raises:
        UserError: if the test pipeline is none that can be augmented.
    """
    dataset = cfg.test_dataloader.dataset
    pipeline = cfg.get("tta_pipeline") or augmented(dataset.pipeline, is_coco(cfg))
    model = cfg.get("tta_model") or tta_model(cfg)
    dataset.pipeline = pipeline
    cfg.model = ConfigDict(**model, module=cfg.model)
    if is_coco(cfg):
        _drop_masks(cfg, cfg.model.module)


def augmented(pipeline: list[Any], detection: bool) -> list[Any]:
    """A test pipeline with all scales and mirrored copies, at its Resize or right after loading.

    Raises:
        UserError: if it has more than one Resize, or one without a scale.
    """
    places = [i for i, step in enumerate(pipeline) if step["type"] == "Resize"]
    before, resize, after = pipeline[:1], {"type": "Resize", "scale_factor": 1.0}, pipeline[1:]
    if len(places) == 1:
        (place,) = places
        before, resize, after = pipeline[:place], pipeline[place], pipeline[place + 1 :]
    if len(places) > 1 or not {"scale", "scale_factor"} & resize.keys():
        raise UserError(
            "--tta: the test pipeline has more than one Resize, or one without scale or "
            "scale_factor; write tta_pipeline and tta_model into the config"
        )
    resizes = [_scaled(resize, factor) for factor in SCALES]
    flips = [{"type": "RandomFlip", "prob": float(flip)} for flip in (False, True)]
    rest = [[_with_flip(step, detection)] for step in after]
    return [*before, {"type": "TestTimeAug", "transforms": [resizes, flips, *rest]}]


def tta_model(cfg: Config) -> dict[str, Any]:
    """The wrapper that merges the results of all views of an image."""
    if not is_coco(cfg):
        return {"type": "SegTTAModel"}
    test = cfg.model.get("test_cfg", {})
    most = test.get("rcnn", test).get("max_per_img", 100)
    return {"type": "DetTTAModel", "tta_cfg": {"nms": _NMS, "max_per_img": most}}


def _scaled(resize: Any, factor: float) -> Any:
    """A Resize to ``factor`` times its scale."""
    if "scale" in resize:
        return {**resize, "scale": tuple(round(side * factor) for side in resize["scale"])}
    return {**resize, "scale_factor": resize["scale_factor"] * factor}


def _with_flip(step: Any, detection: bool) -> Any:
    """What packs the views of a detector must say how each was flipped; mmseg's says so anyway."""
    return {**step, "meta_keys": _META} if detection and step["type"] == "PackDetInputs" else step


def _drop_masks(cfg: Config, model: Any) -> None:
    """No mask head and no mask AP: mmdet's wrapper refuses predictions with masks."""
    for part in ("mask_head", "mask_roi_extractor"):
        model.get("roi_head", {}).pop(part, None)
    evaluators = cfg.test_evaluator
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        metric = evaluator.get("metric")
        if isinstance(metric, list | tuple) and "segm" in metric:
            evaluator.metric = [name for name in metric if name != "segm"]
            print("--tta: masks are not merged, boxes alone are evaluated")
