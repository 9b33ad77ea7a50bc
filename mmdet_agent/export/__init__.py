"""Detectors as they are exported: whole by the table here, or their raw outputs."""

from collections.abc import Mapping
from typing import Any

from mmdet_agent.export.dense import DenseDetector
from mmdet_agent.export.detector import Detector, object_head
from mmdet_agent.export.dynamic_masks import DynamicMaskDetector
from mmdet_agent.export.masks import MaskDetector
from mmdet_agent.export.queries import DeformableDetector, QueryDetector
from mmdet_agent.export.raw import RawDetector
from mmdet_agent.export.two_stage import TwoStageDetector
from mmengine_agent.errors import UserError

# by the class of the head that finds the objects, not of its subclasses, which may decode otherwise
HEADS: Mapping[str, type[Detector]] = {
    "RetinaHead": DenseDetector,
    "RetinaSepBNHead": DenseDetector,
    "ATSSHead": DenseDetector,
    "FCOSHead": DenseDetector,
    "GFLHead": DenseDetector,
    "RTMDetHead": DenseDetector,
    "RTMDetSepBNHead": DenseDetector,
    "RTMDetInsHead": DynamicMaskDetector,
    "RTMDetInsSepBNHead": DynamicMaskDetector,
    "StandardRoIHead": TwoStageDetector,
    "CascadeRoIHead": TwoStageDetector,
    "DETRHead": QueryDetector,
    "ConditionalDETRHead": QueryDetector,
    "DABDETRHead": QueryDetector,
    "DeformableDETRHead": DeformableDetector,
    "DINOHead": DeformableDetector,
    "MaskFormerHead": MaskDetector,
    "Mask2FormerHead": MaskDetector,
}


def whole(model: Any, prepare: Any) -> Detector:
    """A detector from images to objects.

    Raises:
        UserError: if ``HEADS`` has no entry for its head.
    """
    head = object_head(model)
    kind = HEADS.get(type(head).__name__)
    if kind is None:
        raise UserError(
            f"cannot export a {type(model).__name__} with a {type(head).__name__} whole; those "
            f"known are {', '.join(HEADS)}. --raw gives the outputs that boxes are made of"
        )
    return kind(model, prepare)


def raw(model: Any, prepare: Any) -> RawDetector:
    """A detector up to the outputs of its dense head.

    Raises:
        UserError: if it has none.
    """
    if not hasattr(model, "rpn_head") and getattr(model, "bbox_head", None) is None:
        name = type(model).__name__
        raise UserError(f"cannot export a {name} --raw: it has no rpn_head or bbox_head")
    return RawDetector(model, prepare)
