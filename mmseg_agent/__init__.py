"""Agent Attention backbones for MMSegmentation 1.x, registered when this is imported."""

from mmengine_agent.versions import require

require("mmengine", "mmcv", "mmseg")

from mmseg.registry import DATASETS, MODELS  # noqa: E402

import mmengine_agent.hooks  # noqa: E402  (registers hooks, as do the next)
import mmengine_agent.hooks.mean_loss  # noqa: E402
import mmengine_agent.resume  # noqa: E402, F401
from mmengine_agent.backbones import AgentPVT, AgentSwinTransformer  # noqa: E402
from mmengine_agent.checkpoints import install_safe_loader  # noqa: E402
from mmseg_agent.datasets import NamedSegDataset  # noqa: E402

# force: a second import under another path, as custom_imports may cause, must not fail.
for backbone in (AgentPVT, AgentSwinTransformer):
    MODELS.register_module(module=backbone, force=True)
DATASETS.register_module(module=NamedSegDataset, force=True)
install_safe_loader()

__all__ = ["AgentPVT", "AgentSwinTransformer"]
