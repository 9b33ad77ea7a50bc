"""Data and losses that misbehave while a run goes.

- ``checked_loading``: what decoders would let pass is found; ``bad_samples``: what becomes of it.
- ``bad_losses``: losses that are NaN or infinite.
- ``flags``: what ``tools/train.py`` offers, and puts into a config.
"""

from mmengine_agent.hooks.losses import BadLossesHook
from mmengine_agent.hooks.samples import BadSamplesHook
from mmengine_agent.run.guard_flags import add_guard_flags, guard_loading, set_guards

__all__ = [
    "BadLossesHook",
    "BadSamplesHook",
    "add_guard_flags",
    "guard_loading",
    "set_guards",
]
