"""Agent Attention backbones for MMDetection 3.x, registered when this is imported."""

from agent_attention.openmmlab.versions import require

require("mmengine", "mmcv", "mmdet")

from mmdet.registry import MODELS  # noqa: E402

from agent_attention.openmmlab.backbones import AgentPVT  # noqa: E402
from agent_attention.openmmlab.resume import allow_run_state  # noqa: E402

# force: a second import under another path, as custom_imports may cause, must not fail.
MODELS.register_module(module=AgentPVT, force=True)
allow_run_state()

__all__ = ["AgentPVT"]
