"""What mmdet asks other packages for, where they are missing or behind."""

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
from mmdet.registry import METRICS, TRANSFORMS

from mmdet_agent.data.segments import LoadSegments
from mmdet_agent.evaluation.panoptic import PanopticMetric


def register_stand_ins() -> None:
    """Make panoptic COCO and LVIS work with what package indices have.

    panopticapi is on none: without it mmdet's names for the loading and the score of panoptic COCO
    stand for our own. lvis 0.5.3, the newest, asks NumPy for ``float``, which it has no longer.
    """
    if find_spec("panopticapi") is None:
        TRANSFORMS.register_module("LoadPanopticAnnotations", force=True, module=LoadSegments)
        METRICS.register_module("CocoPanopticMetric", force=True, module=PanopticMetric)
    scores = sys.modules.get("lvis.eval")  # mmdet's metric has imported it
    if scores is not None and not hasattr(np, "float"):
        scores.np = SimpleNamespace(**vars(np), float=float)  # type: ignore[attr-defined]
