"""The hooks of this toolkit; their import registers them in mmengine's registry.

- ``checkpoint``: atomic writes of checkpoints and of the pointer to the newest.
- ``resume``: a resumed run computes what an uninterrupted one does. ``interrupt``: SIGTERM and
  SIGINT save, and stop.
- ``losses``: those that are NaN or infinite, and their means over all processes for the log.
- ``samples``: images that cannot be loaded.
"""

from mmengine_agent.hooks import checkpoint, interrupt, losses, resume, samples  # noqa: F401
