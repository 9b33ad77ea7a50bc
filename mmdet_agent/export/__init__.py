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
from mmdet_agent.export.yolox import YoloxDetector
from mmengine_agent.errors import UserError

# by the class of the head that finds the objects, not of its subclasses, which may decode otherwise
HEADS: Mapping[str, type[Detector]] = {
    "RetinaHead": DenseDetector,
    "RetinaSepBNHead": DenseDetector,
    "FreeAnchorRetinaHead": DenseDetector,
    "PISARetinaHead": DenseDetector,
    "FSAFHead": DenseDetector,
    "YOLOFHead": DenseDetector,
    "ATSSHead": DenseDetector,
    "FCOSHead": DenseDetector,
    "GFLHead": DenseDetector,
    "RTMDetHead": DenseDetector,
    "RTMDetSepBNHead": DenseDetector,
    "RTMDetInsHead": DynamicMaskDetector,
    "RTMDetInsSepBNHead": DynamicMaskDetector,
    "YOLOXHead": YoloxDetector,
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
_RAW = ". --raw gives the outputs that boxes are made of"


def whole(model: Any, prepare: Any) -> Detector:
    """A detector from images to objects.

    Raises:
        UserError: if ``HEADS`` has no entry for its head, or it paints its objects over stuff.
    """
    head = object_head(model)
    if hasattr(model, "panoptic_fusion_head") and not hasattr(model, "panoptic_head"):
        raise UserError(
            f"cannot export the panoptic segments of a {type(model).__name__}, which are painted "
            "one over the other; a Faster or Mask R-CNN gives its instances"
        )
    kind = HEADS.get(type(head).__name__)
    if kind is None:
        part = "" if head is model else f" with a {type(head).__name__}"
        raise UserError(
            f"cannot export a {type(model).__name__}{part} whole; heads that can be are "
            f"{', '.join(HEADS)}{_RAW if has_raw_outputs(model) else ''}"
        )
    return kind(model, prepare)


def raw(model: Any, prepare: Any) -> RawDetector:
    """A detector up to the outputs of its dense head.

    Raises:
        UserError: if it has none.
    """
    if not has_raw_outputs(model):
        raise UserError(
            f"cannot export a {type(model).__name__} --raw: it has no head that makes maps of "
            "scores and boxes"
        )
    return RawDetector(model, prepare)


def has_raw_outputs(model: Any) -> bool:
    """Whether a detector has a head that makes maps of scores and boxes; queries make none."""
    head = getattr(model, "rpn_head", None) or getattr(model, "bbox_head", None)
    queries = hasattr(model, "num_queries") or hasattr(head, "init_proposal_bboxes")
    return head is not None and not queries
