"""What the import of a task's package registers."""

from mmengine.registry import Registry

import mmengine_agent.resume.switch_on  # noqa: F401  (registers hooks and the loop)
from mmengine_agent.backbones import REGISTERED
from mmengine_agent.checkpoints import install_safe_loader


def register(models: Registry) -> None:
    """Register the backbones in a task's registry; hooks, the loop and the loader are mmengine's.

    Args:
        models: ``MODELS`` of mmdet or mmseg.
    """
    for backbone in REGISTERED.values():
        # force: a second import under another path, as custom_imports may cause, must not fail
        models.register_module(module=backbone, force=True)
    install_safe_loader()
