"""What the import of a task's package registers."""

from mmengine.registry import Registry

import mmengine_agent.optimizer_constructors
import mmengine_agent.resume.switch_on
import mmengine_agent.run.mixed_precision  # noqa: F401  (all register what is in them)
from mmengine_agent.backbones import REGISTERED
from mmengine_agent.checkpoints import install_safe_loader
from mmengine_agent.simple_feature_pyramid import ChannelLayerNorm, SimpleFeaturePyramid
from mmengine_agent.swapped import SwappedAttention


def register(models: Registry) -> None:
    """Register backbones, neck and norm in a task's registry; hooks and the rest are mmengine's.

    Args:
        models: ``MODELS`` of mmdet or mmseg.
    """
    for module in (*REGISTERED.values(), SimpleFeaturePyramid, ChannelLayerNorm):
        # force: a second import under another path, as custom_imports may cause, must not fail
        models.register_module(module=module, force=True)
    models.register_module(module=SwappedAttention, force=True)
    install_safe_loader()
