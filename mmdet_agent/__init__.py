"""Agent Attention backbones for MMDetection 3.x, registered when this is imported.

Where panopticapi, which is on no package index, is missing, mmdet's names for the loading and the
score of panoptic COCO stand for our own.
"""

from importlib.util import find_spec

from mmengine_agent.versions import require

require("mmengine", "mmcv", "mmdet")

from mmdet.registry import METRICS, MODELS, TRANSFORMS  # noqa: E402

from mmdet_agent.data.segments import LoadSegments  # noqa: E402
from mmdet_agent.evaluation.panoptic import PanopticMetric  # noqa: E402
from mmengine_agent.backbones import REGISTERED  # noqa: E402
from mmengine_agent.register import register  # noqa: E402
from mmengine_agent.simple_feature_pyramid import SimpleFeaturePyramid  # noqa: E402

register(MODELS)
globals().update(REGISTERED)
if find_spec("panopticapi") is None:
    TRANSFORMS.register_module("LoadPanopticAnnotations", force=True, module=LoadSegments)
    METRICS.register_module("CocoPanopticMetric", force=True, module=PanopticMetric)

__all__ = [*REGISTERED, "SimpleFeaturePyramid"]
