"""The hooks of this toolkit; their import registers them in mmengine's registry.

- ``checkpoint``: atomic writes of checkpoints and of the pointer to the newest.
- ``resume``: a resumed run computes what an uninterrupted one does. ``interrupt``: SIGTERM and
  SIGINT save, and stop.
- ``losses``: those that are NaN or infinite, and their means over all processes for the log.
- ``samples``: images that cannot be loaded.
"""

from mmengine_agent.hooks.checkpoint import SafeCheckpointHook
from mmengine_agent.hooks.interrupt import InterruptHook
from mmengine_agent.hooks.losses import BadLossesHook, MeanLossHook
from mmengine_agent.hooks.resume import ExactResumeHook
from mmengine_agent.hooks.samples import BadSamplesHook

__all__ = [
    "BadLossesHook",
    "BadSamplesHook",
    "ExactResumeHook",
    "InterruptHook",
    "MeanLossHook",
    "SafeCheckpointHook",
]
