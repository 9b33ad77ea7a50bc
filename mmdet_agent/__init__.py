"""Agent Attention backbones for MMDetection 3.x, registered when this is imported."""

from mmengine_agent.versions import require

require("mmengine", "mmcv", "mmdet")

from mmdet.registry import MODELS  # noqa: E402

from mmdet_agent.stand_ins import register_stand_ins  # noqa: E402
from mmengine_agent.backbones import REGISTERED  # noqa: E402
from mmengine_agent.register import register  # noqa: E402
from mmengine_agent.simple_feature_pyramid import SimpleFeaturePyramid  # noqa: E402

register(MODELS)
register_stand_ins()
globals().update(REGISTERED)

__all__ = [*REGISTERED, "SimpleFeaturePyramid"]
