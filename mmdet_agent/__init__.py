"""Agent Attention backbones for MMDetection 3.x, registered when this is imported."""

from mmengine_agent.versions import require

require("mmengine", "mmcv", "mmdet")

from mmdet.registry import MODELS  # noqa: E402

from mmengine_agent.backbones import AgentPVT, AgentSwinTransformer  # noqa: E402
from mmengine_agent.register import register  # noqa: E402

register(MODELS)

__all__ = ["AgentPVT", "AgentSwinTransformer"]
